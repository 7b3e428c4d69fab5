//! The container's state, as a runtime gives it to hooks (OCI runtime spec, "State").

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    cni::env::check_id,
    error::{HookError, shown},
    input::parse,
    json::{JsonNode, Reader},
};

/// Where in its life the container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// `creating` or `created`: createRuntime, prestart.
    Starting,
    /// `stopped`: poststop.
    Stopping,
}

/// What a hook needs of the state.
#[derive(Debug, Clone, PartialEq)]
pub struct OciState {
    /// `id`.
    pub id: String,
    /// `pid` of the container's first process; 0 when it is gone.
    pub pid: u64,
    /// From `status`.
    pub stage: Stage,
    /// `bundle`: the directory of config.json.
    pub bundle: PathBuf,
    /// `annotations`.
    pub annotations: BTreeMap<String, String>,
}

impl OciState {
    /// Parses the state.
    ///
    /// # Errors
    /// [`HookError::Decode`], or [`HookError::Config`] with every wrong field.
    pub fn parse(bytes: &[u8]) -> Result<Self, HookError> {
        let value = parse(bytes, "the container's state on stdin")?;
        let mut reader = Reader::new();
        let state = Self::read(&JsonNode::root(&value), &mut reader);
        reader.finish()?;
        state.ok_or_else(|| HookError::Decode("the container's state is incomplete".into()))
    }

    fn read(root: &JsonNode<'_>, reader: &mut Reader) -> Option<Self> {
        let root = reader.object(Some(root.clone()))?;
        for key in ["id", "status", "bundle"] {
            if root.get(key).is_none() {
                reader.add(key, "is required");
            }
        }
        let id = reader.string(root.get("id"))?;
        if let Err(problem) = check_id(&id) {
            reader.add("id", problem);
        }
        let stage = stage(&reader.string(root.get("status"))?, reader)?;
        let most = u64::from(u32::MAX >> 1);
        let pid = reader.number(root.get("pid"), 0..=most).unwrap_or(0);
        if pid == 0 && stage == Stage::Starting {
            reader.add("pid", "is required to find the container's namespace");
        }
        let bundle = PathBuf::from(reader.string(root.get("bundle"))?);
        let annotations = reader.string_map(root.get("annotations"));
        Some(Self { id, pid, stage, bundle, annotations })
    }
}

fn stage(status: &str, reader: &mut Reader) -> Option<Stage> {
    match status {
        "creating" | "created" => Some(Stage::Starting),
        "stopped" => Some(Stage::Stopping),
        _ => {
            let problem = format!(
                "{} is none of creating, created, stopped: \
                 netd-hook is for createRuntime (or prestart) and poststop",
                shown(status)
            );
            reader.add("status", problem);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(value: serde_json::Value) -> Result<OciState, HookError> {
        OciState::parse(value.to_string().as_bytes())
    }

    #[test]
    fn runc_s_state_is_read() {
        let state = parsed(json!({"ociVersion": "1.2.0", "id": "web", "status": "creating",
            "pid": 42, "bundle": "/b", "annotations": {"a": "b"}}))
        .unwrap();
        assert_eq!((state.pid, state.stage), (42, Stage::Starting));
        let state = parsed(json!({"id": "web", "status": "stopped", "bundle": "/b"})).unwrap();
        assert_eq!((state.pid, state.stage), (0, Stage::Stopping));
    }

    #[test]
    fn a_wrong_state_names_its_fields() {
        let cases = [
            (json!([]), "(document)"),
            (json!({}), "bundle: is required"),
            (json!({"id": "../x", "status": "creating", "pid": 1, "bundle": "/"}), "id: "),
            (json!({"id": "x", "status": "running", "pid": 1, "bundle": "/"}), "status: "),
            (json!({"id": "x", "status": "created", "bundle": "/"}), "pid: "),
            (json!({"id": "x", "status": "created", "pid": -1, "bundle": "/"}), "pid: "),
            (json!({"id": "x", "status": "stopped", "bundle": 1}), "bundle: "),
        ];
        for (state, part) in cases {
            let error = parsed(state).unwrap_err().to_string();
            assert!(error.contains(part), "{part} in {error}");
        }
        assert!(OciState::parse(b"{").is_err());
    }
}
