//! The JSON form of some fields of an endpoint's record.
//!
//! A record says with an empty path and an identity of zeros that its endpoint is in no
//! sandbox. Earlier releases wrote it so, and they have to read what this one writes.

/// Serde of [`super::Endpoint::netns_path`].
pub(crate) mod path {
    use std::path::PathBuf;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match path {
            Some(path) => path.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        let path = PathBuf::deserialize(deserializer)?;
        Ok((!path.as_os_str().is_empty()).then_some(path))
    }
}

/// Serde of [`super::Endpoint::netns`].
pub(crate) mod id {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::ids::NetnsId;

    const NONE: NetnsId = NetnsId { dev: 0, inode: 0, cookie: None };

    pub(crate) fn serialize<S: Serializer>(
        id: &Option<NetnsId>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        id.unwrap_or(NONE).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<NetnsId>, D::Error> {
        let id = NetnsId::deserialize(deserializer)?;
        Ok((id != NONE).then_some(id))
    }
}

/// Serde of [`super::Endpoint::wiring`].
pub(crate) mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        value: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}
