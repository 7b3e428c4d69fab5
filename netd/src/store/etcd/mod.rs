//! The store on etcd.
