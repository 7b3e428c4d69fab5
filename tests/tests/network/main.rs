//! What pods' networks do: limits, ports, requested addresses, several networks,
//! single families, the underlay's MTU, other people's firewalls.

mod bandwidth;
mod families;
mod flows;
mod foreign_firewall;
mod invalid;
mod mtu;
mod node;
mod requested;
mod sctp;
mod several;
