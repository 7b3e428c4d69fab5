# make deb: the Debian package of netd. docs/packages.md says what is in it, and why debhelper.
#
#   DEB_ARCH     amd64 or arm64; this machine's if not set
#   DEB_VERSION  Cargo's version and, between releases, the commit; with a Debian revision
#   DEB_DIR      where the package is put, target/deb
#   BUILT        as for `make install`
#
# Two builds of a commit give the same package: times are the commit's, and no path of this
# machine is in a program. RUSTFLAGS would make cargo build everything else again each time, so
# the package's programs have a target directory of their own.

DEB_ARCH ?= $(shell dpkg --print-architecture)
DEB_DIR ?= $(CARGO_TARGET_DIR)/deb
CARGO_HOME ?= $(HOME)/.cargo
PACKAGE_TARGET_DIR := $(abspath $(CARGO_TARGET_DIR))/package
REMAPPED := $(ROOT)=/usr/src/netd $(abspath $(CARGO_HOME))=/usr/src/cargo \
	$(PACKAGE_TARGET_DIR)=/usr/src/netd/target

# Another processor's programs are linked by Debian's cross compiler (gcc-aarch64-linux-gnu).
CPU_amd64 := x86_64
CPU_arm64 := aarch64
CPU = $(or $(CPU_$(DEB_ARCH)),$(error DEB_ARCH=$(DEB_ARCH): there is a package for amd64 and arm64))
SHOUTED_CPU = $(shell echo $(CPU) | tr a-z A-Z)
CROSS = CARGO_BUILD_TARGET=$(CPU)-unknown-linux-gnu \
	CARGO_TARGET_$(SHOUTED_CPU)_UNKNOWN_LINUX_GNU_LINKER=$(CPU)-linux-gnu-gcc \
	CARGO_TARGET_$(SHOUTED_CPU)_UNKNOWN_LINUX_MUSL_LINKER=$(CPU)-linux-gnu-gcc
IS_CROSS = $(filter-out $(shell dpkg --print-architecture),$(DEB_ARCH))

PACKAGE_BUILT = $(PACKAGE_TARGET_DIR)/$(if $(IS_CROSS),$(CPU)-unknown-linux-gnu/)release

.PHONY: deb build-package

deb: $(if $(filter command line,$(origin BUILT)),,build-package) ## the Debian package, in target/deb (docs/packages.md)
	@DEB_VERSION=$(DEB_VERSION) $(ROOT)/deploy/deb.sh \
	  $(if $(filter command line,$(origin BUILT)),$(BUILT),$(PACKAGE_BUILT)) $(DEB_DIR) $(DEB_ARCH)

build-package:
	$(if $(IS_CROSS),$(CROSS)) RUSTFLAGS="$(REMAPPED:%=--remap-path-prefix=%)" \
	  $(MAKE) -f $(ROOT)/deploy/install.mk build-programs CARGO_TARGET_DIR=$(PACKAGE_TARGET_DIR)
	$(MAKE) -f $(ROOT)/deploy/install.mk build-manual BUILT=$(PACKAGE_BUILT)
