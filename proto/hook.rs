//! What netd and its hooks agree on besides the messages: see `netd/src/api/hook`.

use alloc::{borrow::ToOwned as _, format, string::String};

/// Key of [`crate::ttrpc::Request::metadata`] of a call whose sandbox's network namespace
/// comes as a descriptor (`SCM_RIGHTS`), with the first byte of the request's frame.
pub const NETNS_KEY: &str = "netd-netns";

/// The key's only value.
pub const NETNS_IS_DESCRIPTOR: &str = "descriptor";

/// Name of the hooks' socket; it is in the directory of the gRPC socket.
pub const SOCKET_NAME: &str = "hook.sock";

/// The hooks' socket of the netd whose gRPC socket is `socket`. A path that ends in
/// `hook.sock` is one already, so that configurations may name either.
pub fn socket_beside(socket: &str) -> String {
    match socket.rsplit_once('/') {
        Some((directory, _)) => format!("{directory}/{SOCKET_NAME}"),
        None => SOCKET_NAME.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hooks_socket_is_beside_the_other_one() {
        assert_eq!(socket_beside(crate::DEFAULT_SOCKET), "/run/netd/hook.sock");
        assert_eq!(socket_beside("/run/netd/hook.sock"), "/run/netd/hook.sock");
        assert_eq!(socket_beside("/x.sock"), "/hook.sock");
    }
}
