//! What a transaction may hold, whatever the store. Checked before anything is done.

use std::collections::HashSet;

use crate::{
    error::StoreError,
    keys,
    txn::{Change, Txn},
};

/// Longest key, bytes.
pub(crate) const MAX_KEY_BYTES: usize = 4096;
/// Longest value, bytes.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// How long a key lasts. One transaction changes keys of one class only, because
/// each class has a file of its own and two files can't be changed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Over reboots; written with fsync.
    Durable,
    /// Over a crash of netd, but not over a reboot; written without fsync.
    Volatile,
}

impl Class {
    /// The class of a key, by its prefix.
    pub fn of(key: &str) -> Self {
        if key.starts_with(keys::VOLATILE) { Self::Volatile } else { Self::Durable }
    }
}

/// Checks a transaction; the class of its changes, `None` if it has none.
///
/// # Errors
/// [`StoreError::BadTransaction`]: an empty or too long key, a too long value, a
/// negative lease, a key changed twice, changes of both classes.
pub fn check(txn: &Txn) -> Result<Option<Class>, StoreError> {
    let mut changed = HashSet::with_capacity(txn.changes.len());
    let mut class = None;
    for compare in &txn.compares {
        check_key(compare.key())?;
    }
    for change in &txn.changes {
        let key = change.key();
        check_key(key)?;
        if !changed.insert(key) {
            return bad(format!("{} is changed twice; change it once", shown(key)));
        }
        let own = Class::of(key);
        if class.is_some_and(|c| c != own) {
            let volatile = keys::VOLATILE;
            return bad(format!(
                "{} and an earlier key differ in being under {volatile}; change them in two transactions",
                shown(key)
            ));
        }
        class = Some(own);
        if let Change::Put { value, lease, .. } = change {
            check_value(key, value.len(), *lease)?;
        }
    }
    Ok(class)
}

fn check_key(key: &str) -> Result<(), StoreError> {
    match key.len() {
        0 => bad("a key is empty".to_owned()),
        n if n > MAX_KEY_BYTES => {
            bad(format!("{} has {n} bytes, at most {MAX_KEY_BYTES} fit", shown(key)))
        }
        _ => Ok(()),
    }
}

fn check_value(key: &str, len: usize, lease: i64) -> Result<(), StoreError> {
    if len > MAX_VALUE_BYTES {
        return bad(format!(
            "the value of {} has {len} bytes, at most {MAX_VALUE_BYTES} fit",
            shown(key)
        ));
    }
    if lease < 0 {
        return bad(format!(
            "{} is bound to lease {lease}; a lease is positive, 0 is none",
            shown(key)
        ));
    }
    Ok(())
}

fn bad<T>(what: String) -> Result<T, StoreError> {
    Err(StoreError::BadTransaction(what))
}

/// The beginning of a key: it may be megabytes of junk.
fn shown(key: &str) -> String {
    key.chars().take(128).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Compare;

    fn put(key: &str, len: usize, lease: i64) -> Change {
        Change::Put { key: key.into(), value: vec![0; len], lease }
    }

    fn of(changes: Vec<Change>) -> Result<Option<Class>, StoreError> {
        check(&Txn { compares: vec![], changes })
    }

    #[test]
    fn limits_hold_to_the_byte() {
        let longest = "k".repeat(MAX_KEY_BYTES);
        assert!(matches!(of(vec![put(&longest, MAX_VALUE_BYTES, 0)]), Ok(Some(Class::Durable))));
        let err = of(vec![put(&format!("{longest}k"), 0, 0)]).unwrap_err().to_string();
        assert!(err.contains("4097") && err.len() < 300, "{err}");
        assert!(of(vec![put("k", MAX_VALUE_BYTES + 1, 0)]).is_err());
        assert!(of(vec![put("", 0, 0)]).is_err());
        assert!(of(vec![put("k", 0, -1)]).is_err());
        let compares = vec![Compare::Absent(String::new())];
        assert!(check(&Txn { compares, changes: vec![] }).is_err());
    }

    #[test]
    fn a_transaction_changes_each_key_once_and_one_class_only() {
        let node = format!("{}x", keys::VOLATILE);
        let both = of(vec![put("k", 0, 0), Change::Delete { key: node.clone() }]);
        assert!(both.unwrap_err().to_string().contains("two transactions"));
        let twice = of(vec![put("k", 0, 0), Change::Delete { key: "k".into() }]);
        assert!(twice.unwrap_err().to_string().contains("twice"));
        assert!(matches!(of(vec![put(&node, 0, 0)]), Ok(Some(Class::Volatile))));
        assert!(matches!(of(vec![]), Ok(None)));
    }
}
