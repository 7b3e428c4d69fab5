//! Pure: which steps lead from what the kernel holds to what it has to hold.

pub mod actual;
pub mod endpoint;
pub mod limit;
pub mod network;
pub mod op;
#[cfg(test)]
mod tests;

pub use actual::{ActualEndpoint, ActualLimits, ActualLink};
pub use endpoint::{needs_local_routes, plan_endpoint, plan_new};
pub use network::{ActualNetwork, NetworkOp, plan_network, provisional_mtu};
pub use op::{LinkChange, Op, Shape, Shaped, Side};
