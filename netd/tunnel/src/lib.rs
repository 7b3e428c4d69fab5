//! Userspace tunnels of the udp and wireguard backends.
//!
//! netd-tunnel is a process of its own, so that no packet is lost when netd restarts. It
//! owns the tun devices' files and the UDP sockets and moves packets between them; netd
//! tells it which peers there are (`proto/netd/tunnel`) and does everything else.
//!
//! From the inside out: [`packet`] knows bytes, [`spec`] what was asked for; [`engine`]
//! is what becomes of packets; [`sys`] has the system calls; a [`tunnel`] puts these
//! together with threads; [`manager`] has all tunnels and remembers them; [`service`]
//! and [`listener`] are the way in.

#![warn(missing_docs)]

pub mod cli;
pub mod counters;
pub mod engine;
pub mod fd_store;
pub mod listener;
pub mod manager;
pub mod packet;
pub mod peers;
pub mod service;
pub mod spec;
pub mod state;
pub mod sys;
pub mod table;
pub mod tunnel;
