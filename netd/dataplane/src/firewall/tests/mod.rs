//! Those that need the kernel make network namespaces of their own, one thread each;
//! they do nothing without root.
#![allow(clippy::unwrap_used)]

mod damage;
mod encoding;
mod golden;
mod hostports;
mod kernel;
mod reach;
mod replacing;
mod samples;
mod spoofing;
mod testbed;
mod topology;
