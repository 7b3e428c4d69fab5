start_netd() {
    systemctl -q enable --now netd.socket netd-ttrpc.socket netd.service netd-hook.service
    wait_ready
}

wait_ready() {
    for _ in $(seq 240); do
        netd status >/tmp/status 2>&1 && return
        sleep 0.5
    done
    cat /tmp/status
    return 1
}

# What the machine holds: devices, rules, files where netd puts some. containerd makes its
# directory of configurations too, and watches it.
inventory() {
    ip -o link show | sed 's/^[0-9]*: //; s/ .*//'
    nft list ruleset
    find /etc /var/lib /run /opt /usr/bin /usr/lib/systemd /lib/systemd -path /run/systemd -prune \
        -o -path /run/udev -prune -o -print | grep -i -e netd -e cni -e flannel |
        grep -v -x -e /etc/cni -e /etc/cni/net.d | sort
}

# cni COMMAND POD NETWORK: calls the plugin as a runtime would.
cni() {
    printf '{"cniVersion":"1.0.0","name":"netd","type":"netd-hook","network":"%s"}' "$3" |
        CNI_COMMAND=$1 CNI_CONTAINERID=$2 CNI_NETNS=/run/netns/$2 CNI_IFNAME=eth0 \
            CNI_PATH=/usr/lib/cni /usr/lib/cni/netd-hook
}

add_pod() {
    ip netns add "$1"
    ip -n "$1" link set lo up
    cni ADD "$1" "$2" >/dev/null
}

remove_pod() {
    cni DEL "$1" "$2"
    ip netns delete "$1"
}

# address POD FAMILY(4|6)
address() { ip -n "$1" -"$2" -br address show dev eth0 scope global | awk '{print $3}' | cut -d / -f 1; }

# Both families, 100 packets a second each, from one pod to another until stop_traffic.
start_traffic() {
    for family in 4 6; do
        ip netns exec "$1" ping -i 0.01 "$(address "$2" $family)" >"/root/traffic-$1-$family" 2>&1 &
        echo $! >"/root/traffic-$1-$family.pid"
    done
}

# Says what was lost; nothing may be. The last packet's answer may be on its way yet.
stop_traffic() {
    for file in /root/traffic-"$1"-?; do
        kill -INT "$(cat "$file.pid")"
        sleep 1
        awk '/ bytes from / && !/DUP/ && match($0, /icmp_seq=[0-9]+/) {
                 answers++
                 last = substr($0, RSTART + 9, RLENGTH - 9)
             }
             /packets transmitted/ { sent = $1 }
             END {
                 print sent " sent, " answers " answered, " last - answers " lost"
                 exit !(answers > 0 && answers == last && sent - last <= 1)
             }' "$file"
    done
}

# Every device with its addresses, but the machine's card: that is the managers'.
devices() { ip -br address | awk '$1 !~ /^e/ {$2 = ""; print}' | sort; }
