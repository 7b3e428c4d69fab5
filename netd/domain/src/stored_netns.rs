//! How a record says that an endpoint is in no sandbox: an empty path, and an identity of
//! zeros. Records of earlier releases do so, and earlier releases read those of this one.

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

    const NONE: NetnsId = NetnsId { dev: 0, inode: 0 };

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
