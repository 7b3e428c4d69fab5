//! What pods' networks do: limits, ports, requested addresses, several networks,
//! single families, the underlay's MTU, other people's firewalls.

mod bandwidth;
mod chain;
mod families;
mod flows;
mod foreign_firewall;
mod invalid;
mod mtu;
mod neighbours;
mod node;
mod repeated;
mod requested;
mod sctp;
mod several;
