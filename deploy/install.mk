# make install, make uninstall: binaries, units, configuration, completions.
#
#   PREFIX   where to, /usr/local
#   DESTDIR  put before every path, for packagers; nothing is reloaded then
#
# What is running goes on running: netd's service is neither enabled nor restarted.
# An existing /etc/netd/netd.toml is left as it is.

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
DATADIR ?= $(PREFIX)/share
UNITDIR ?= /etc/systemd/system
SYSCONFDIR ?= /etc
INSTALL ?= install
CARGO ?= cargo

# This file's directory's parent: the workspace.
ROOT := $(patsubst %/,%,$(dir $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))))
# Where cargo puts what it builds.
CARGO_TARGET_DIR ?= $(ROOT)/target
BUILT ?= $(CARGO_TARGET_DIR)/release
UNITS := netd.service netd.socket netd-tunnel.service netd-hook.service netd-nri.service \
	netd-docker.service

# The CNI plugin knows this processor's way to begin; elsewhere netd-hook is the plugin.
PLUGIN := $(if $(filter x86_64,$(shell uname -m)),netd-cni)
PROGRAMS := netd netd-tunnel netd-hook $(PLUGIN)

.PHONY: install uninstall build-release build-plugin

# What is executed for every pod is linked statically and without relocations of its own:
# no loader, and 40 pages less to touch. The flags are those of one executable each: with
# them for all, build scripts could not be linked.
STATIC := -C target-feature=+crt-static -C relocation-model=static

build-release: build-plugin
	cd $(ROOT) && $(CARGO) build --release --locked --bin netd --bin netd-tunnel
	cd $(ROOT) && $(CARGO) rustc --profile hook --locked -p runtime-hook --bin netd-hook \
	  -- $(STATIC)
	cd $(CARGO_TARGET_DIR) && cp --remove-destination $(addprefix hook/,netd-hook $(PLUGIN)) release/

build-plugin:
	$(if $(PLUGIN),cd $(ROOT) && $(CARGO) rustc --profile hook --locked -p netd-cni \
	  --features bare --bin netd-cni -- $(STATIC))

# Packagers may install what they built before (make install BUILT=...).
install: $(if $(filter command line,$(origin BUILT)),,build-release)
	$(INSTALL) -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(UNITDIR) $(DESTDIR)$(SYSCONFDIR)/netd
	$(INSTALL) -m 0755 $(addprefix $(BUILT)/,$(PROGRAMS)) $(DESTDIR)$(BINDIR)/
	for unit in $(UNITS); do \
	  sed 's|/usr/local/bin/|$(BINDIR)/|' $(ROOT)/deploy/systemd/$$unit \
	    > $(DESTDIR)$(UNITDIR)/$$unit && chmod 0644 $(DESTDIR)$(UNITDIR)/$$unit || exit 1; \
	done
	test -e $(DESTDIR)$(SYSCONFDIR)/netd/netd.toml || \
	  $(INSTALL) -m 0644 $(ROOT)/deploy/netd.toml $(DESTDIR)$(SYSCONFDIR)/netd/netd.toml
	for version in 1.7 2.x; do \
	  $(INSTALL) -D -m 0644 $(ROOT)/deploy/containerd/$$version/netd.toml \
	    $(DESTDIR)$(DATADIR)/netd/containerd/$$version/netd.toml || exit 1; \
	done
	$(INSTALL) -D -m 0644 $(ROOT)/deploy/docker/docker.service.d-netd.conf \
	  $(DESTDIR)$(DATADIR)/netd/docker/docker.service.d/netd.conf
	$(INSTALL) -d $(DESTDIR)$(DATADIR)/bash-completion/completions \
	  $(DESTDIR)$(DATADIR)/zsh/site-functions $(DESTDIR)$(DATADIR)/fish/vendor_completions.d
	$(BUILT)/netd completions bash > $(DESTDIR)$(DATADIR)/bash-completion/completions/netd
	$(BUILT)/netd completions zsh > $(DESTDIR)$(DATADIR)/zsh/site-functions/_netd
	$(BUILT)/netd completions fish > $(DESTDIR)$(DATADIR)/fish/vendor_completions.d/netd.fish
	@test -n "$(DESTDIR)" || ! test -d /run/systemd/system || systemctl daemon-reload
	@echo "Installed. Next: $(BINDIR)/netd doctor"
	@echo "and: systemctl enable --now netd.socket netd.service netd-hook.service"

uninstall:
	rm -f $(addprefix $(DESTDIR)$(BINDIR)/,$(PROGRAMS))
	rm -f $(addprefix $(DESTDIR)$(UNITDIR)/,$(UNITS))
	rm -rf $(DESTDIR)$(DATADIR)/netd
	rm -f $(DESTDIR)$(DATADIR)/bash-completion/completions/netd \
	  $(DESTDIR)$(DATADIR)/zsh/site-functions/_netd \
	  $(DESTDIR)$(DATADIR)/fish/vendor_completions.d/netd.fish
	@test -n "$(DESTDIR)" || ! test -d /run/systemd/system || systemctl daemon-reload
