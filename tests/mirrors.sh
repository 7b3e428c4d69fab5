# Sourced by the scripts that fetch Debian's packages. They have a directory $bed, below which
# apt keeps what it knows of each suite, and the functions say and die.
# shellcheck shell=sh

# The mirror that answered; empty until one is needed.
mirror=

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

# Of a suite: bookworm is for this test bed's processor, bookworm-arm64 for another.
architecture() {
    case "$1" in
    *-arm64) echo arm64 ;;
    *) echo amd64 ;;
    esac
}

# A suite's own apt: own sources, lists, cache and state; the system's keyring and proxy.
suite_apt() {
    suite=$1
    shift
    apt-get -q \
        -o Dir::Etc::SourceList="$bed/apt/$suite/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State="$bed/apt/$suite/state" -o Dir::State::status="$bed/apt/$suite/status" \
        -o Dir::Cache="$bed/apt/$suite/cache" -o APT::Sandbox::User=root \
        -o APT::Architecture="$(architecture "$suite")" \
        -o APT::Architectures="$(architecture "$suite")" \
        -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

read_suite() {
    options="arch=$(architecture "$1") check-valid-until=no signed-by=$keyring"
    echo "deb [$options] $2 ${1%-arm64} main" \
        >"$bed/apt/$1/sources.list"
    suite_apt "$1" update -o APT::Update::Error-Mode=any >"$bed/apt/$1/log" 2>&1
}

# Other archives than Debian's have no such suite, or no signature of Debian's keyring:
# the first mirror that answers with both is taken for all that follows.
update_suite() {
    suite=$1
    [ -e "$bed/apt/$suite/updated" ] && return
    mkdir -p "$bed/apt/$suite/state/lists/partial" "$bed/apt/$suite/cache/archives/partial"
    : >"$bed/apt/$suite/status"
    say "reading the package list of Debian $suite"
    tried=""
    for uri in ${mirror:-$(candidates)}; do
        if read_suite "$suite" "$uri"; then
            mirror=$uri
            touch "$bed/apt/$suite/updated"
            return
        fi
        tried="$tried $uri"
        tail -n 5 "$bed/apt/$suite/log" >&2
    done
    die "no mirror has the package list of Debian $suite (tried:${tried:- none; /etc/apt names no Debian archive}); NETD_DEBIAN_MIRROR names another mirror"
}

# shown SUITE PACKAGE: what the newest version of a suite's package says of itself.
shown() {
    apt-cache \
        -o Dir::Etc::SourceList="$bed/apt/$1/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State="$bed/apt/$1/state" -o Dir::State::status="$bed/apt/$1/status" \
        -o APT::Architecture="$(architecture "$1")" -o APT::Architectures="$(architecture "$1")" \
        -o Dir::Cache="$bed/apt/$1/cache" show --no-all-versions "$2"
}
