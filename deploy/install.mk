# make install, make uninstall: binaries, units, configuration, manual pages, completions.
#
#   PREFIX   where to install, /usr/local
#   DESTDIR  prepended to every path, for packagers; systemd is not reloaded then
#   BUILT    where an earlier `make build-release` left its results: nothing is built then
#
# CARGO_BUILD_TARGET in the environment builds for another processor.
#
# netd's service is neither enabled nor restarted: what runs goes on running.
# An existing /etc/netd/netd.toml is left as it is. Modes do not depend on the umask.

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
DATADIR ?= $(PREFIX)/share
UNITDIR ?= /etc/systemd/system
# What keeps systemd-networkd and NetworkManager away from netd's devices.
NETWORKD_DIR ?= $(SYSCONFDIR)/systemd/network
NETWORKMANAGER_DIR ?= $(SYSCONFDIR)/NetworkManager/conf.d
SYSCONFDIR ?= /etc
INSTALL ?= install
CARGO ?= cargo

# This file's directory's parent: the workspace.
ROOT := $(patsubst %/,%,$(dir $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))))
# Where cargo puts what it builds.
CARGO_TARGET_DIR ?= $(ROOT)/target
TARGET_RELEASE = $(CARGO_TARGET_DIR)/$(CARGO_BUILD_TARGET:%=%/)release
TARGET_HOOK = $(CARGO_TARGET_DIR)/$(CARGO_BUILD_TARGET:%=%/)hook
BUILT ?= $(TARGET_RELEASE)
UNITS := netd.service netd.socket netd-ttrpc.socket netd-tunnel.service netd-hook.service \
	netd-nri.service netd-docker.service
PROGRAMS := netd netd-tunnel netd-hook netd-cni
DOCKER_DROP_IN = $(DESTDIR)$(DATADIR)/netd/docker/docker.service.d/netd.conf
# Prints a file of deploy/, in which the programs are in /usr/local/bin, with BINDIR.
WITH_BINDIR = sed 's|/usr/local/bin/|$(BINDIR)/|g'

# The CNI plugin is linked with musl, whose start is shorter than glibc's. Where the
# toolchain has no such target (deploy/plugin-target.sh adds it with rustup and says so), it
# is linked with the host's own libc, statically too, and starts slower.
PLUGIN_TARGET ?= $(eval PLUGIN_TARGET := $(shell $(ROOT)/deploy/plugin-target.sh))$(PLUGIN_TARGET)
PLUGIN = $(CARGO_TARGET_DIR)/$(PLUGIN_TARGET)/hook/netd-cni

.PHONY: install uninstall build-release build-programs build-plugin build-manual

# What is executed for every pod is linked statically and without relocations of its own:
# no loader, and 40 pages less to touch. The flags are those of one executable each: with
# them for all, build scripts could not be linked.
STATIC := -C target-feature=+crt-static -C relocation-model=static

build-release: build-programs build-manual

build-programs: build-plugin
	cd $(ROOT) && $(CARGO) build --release --locked --bin netd --bin netd-tunnel
	cd $(ROOT) && $(CARGO) rustc --profile hook --locked -p runtime-hook --bin netd-hook \
	  -- $(STATIC)
	cp --remove-destination $(TARGET_HOOK)/netd-hook $(PLUGIN) $(TARGET_RELEASE)/

build-plugin:
	cd $(ROOT) && $(CARGO) rustc --profile hook --locked -p netd-cni --bin netd-cni \
	  --target $(PLUGIN_TARGET) -- $(STATIC)

# Runs on the machine that builds, whatever processor the release is for. The debug
# profile, because a developer and the tests have built it already.
build-manual:
	cd $(ROOT) && env -u CARGO_BUILD_TARGET $(CARGO) run --quiet --locked -p netd-manual -- $(abspath $(BUILT))/share

install: $(if $(filter command line,$(origin BUILT)),,build-release)
	umask 022 && $(INSTALL) -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(UNITDIR) $(DESTDIR)$(SYSCONFDIR)/netd
	umask 022 && $(INSTALL) -m 0755 $(addprefix $(BUILT)/,$(PROGRAMS)) $(DESTDIR)$(BINDIR)/
	umask 022 && for unit in $(UNITS); do \
	  $(WITH_BINDIR) $(ROOT)/deploy/systemd/$$unit > $(DESTDIR)$(UNITDIR)/$$unit && \
	  chmod 0644 $(DESTDIR)$(UNITDIR)/$$unit || exit 1; \
	done
	test -e $(DESTDIR)$(SYSCONFDIR)/netd/netd.toml || \
	  $(INSTALL) -m 0644 $(ROOT)/deploy/netd.toml $(DESTDIR)$(SYSCONFDIR)/netd/netd.toml
	umask 022 && for version in 1.7 2.x; do \
	  $(INSTALL) -D -m 0644 $(ROOT)/deploy/containerd/$$version/netd.toml \
	    $(DESTDIR)$(DATADIR)/netd/containerd/$$version/netd.toml || exit 1; \
	done
	umask 022 && $(INSTALL) -D -m 0644 $(ROOT)/deploy/networkd/00-netd.network \
	  $(DESTDIR)$(NETWORKD_DIR)/00-netd.network
	umask 022 && $(INSTALL) -D -m 0644 $(ROOT)/deploy/networkmanager/90-netd.conf \
	  $(DESTDIR)$(NETWORKMANAGER_DIR)/90-netd.conf
	umask 022 && $(INSTALL) -d $(dir $(DOCKER_DROP_IN)) && \
	  $(WITH_BINDIR) $(ROOT)/deploy/docker/docker.service.d-netd.conf > $(DOCKER_DROP_IN) && \
	  chmod 0644 $(DOCKER_DROP_IN)
	umask 022 && for file in $$(cd $(BUILT)/share && find . -type f); do \
	  $(INSTALL) -D -m 0644 $(BUILT)/share/$$file $(DESTDIR)$(DATADIR)/$$file || exit 1; \
	done
	@test -n "$(DESTDIR)" || ! test -d /run/systemd/system || systemctl daemon-reload
	@echo "Installed. Next: $(BINDIR)/netd doctor"
	@echo "and: systemctl enable --now netd.socket netd-ttrpc.socket netd.service netd-hook.service"

# Refuses while endpoints exist, unless FORCE=1.
uninstall:
	@test -n "$(DESTDIR)" || FORCE=$(FORCE) $(ROOT)/deploy/uninstall.sh $(BINDIR) $(UNITS)
	@test -n "$(DESTDIR)" || ! test -d /run/systemd/system || systemctl disable $(UNITS) 2>/dev/null || :
	rm -f $(addprefix $(DESTDIR)$(BINDIR)/,$(PROGRAMS))
	rm -f $(addprefix $(DESTDIR)$(UNITDIR)/,$(UNITS))
	rm -f $(DESTDIR)$(NETWORKD_DIR)/00-netd.network $(DESTDIR)$(NETWORKMANAGER_DIR)/90-netd.conf
	rm -rf $(DESTDIR)$(DATADIR)/netd
	for name in netd netd-hook netd-tunnel; do \
	  rm -f $(DESTDIR)$(DATADIR)/bash-completion/completions/$$name \
	    $(DESTDIR)$(DATADIR)/zsh/site-functions/_$$name \
	    $(DESTDIR)$(DATADIR)/fish/vendor_completions.d/$$name.fish; \
	done
	rm -f $(DESTDIR)$(DATADIR)/man/man8/netd.8 $(DESTDIR)$(DATADIR)/man/man8/netd-*.8
	@test -n "$(DESTDIR)" || ! test -d /run/systemd/system || systemctl daemon-reload
