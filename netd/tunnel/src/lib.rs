//! Userspace tunnels of the udp and wireguard backends.
