# Sourced by the scripts that fetch Debian's packages.
# shellcheck shell=sh

# shellcheck disable=SC2034  # of those who source this
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# The mirrors that may be Debian's archive, one a line. apt itself reads its sources, so
# one-line lists and deb822 .sources files both count. A suite's name with a dash
# (bookworm-security) belongs to another archive or adds to one that is listed anyway.
candidates() {
    if [ -n "${NETD_DEBIAN_MIRROR:-}" ]; then
        echo "$NETD_DEBIAN_MIRROR"
        return
    fi
    apt-get --print-uris update |
        sed -n "s|^'\([^']*\)/dists/[a-z]*/InRelease'.*|\1|p" | grep -v '^cdrom:' | awk '!seen[$0]++'
}
