//! The overlay's devices, routes, neighbours and forwarding entries.
