//! Adds and removes elements, in one transaction each.

use super::{
    elements::Element,
    message::{self, DELETE_SET_ELEMENT, DESTROY_SET_ELEMENT, NEW_SET_ELEMENT},
};
use crate::{
    DataplaneError,
    error::failed,
    netlink::{Refusal, Socket},
};

/// `NLM_F_CREATE`; without `NLM_F_EXCL` an existing element is fine.
const CREATE: u16 = libc::NLM_F_CREATE as u16;

/// Adds all of `elements`.
///
/// # Errors
/// `PortTaken`; `Kernel` with the refusal; `Io` when the socket fails.
pub(super) fn add(socket: &mut Socket, elements: &[Element]) -> Result<(), DataplaneError> {
    let changes: Vec<_> =
        elements.iter().map(|e| (NEW_SET_ELEMENT, CREATE, message::of_element(e, true))).collect();
    let Some((index, refusal)) = send(socket, &changes)? else { return Ok(()) };
    let element = elements.get(index);
    // The key exists with other data: EBUSY or EEXIST, by the kernel's version.
    if matches!(refusal.errno, libc::EBUSY | libc::EEXIST)
        && let Some(port) = element.and_then(Element::host_port)
    {
        return Err(DataplaneError::PortTaken { port });
    }
    Err(refused("adding", element, &refusal))
}

/// Removes those of `elements` that exist.
///
/// # Errors
/// `Kernel` with the refusal; `Io` when the socket fails. A missing table is no error.
pub(super) fn remove(
    socket: &mut Socket,
    elements: &[Element],
    destroys: &mut bool,
) -> Result<(), DataplaneError> {
    if *destroys {
        let changes: Vec<_> = elements
            .iter()
            .map(|e| (DESTROY_SET_ELEMENT, 0, message::of_element(e, false)))
            .collect();
        match send(socket, &changes)? {
            None => return Ok(()),
            Some((_, refusal)) if refusal.errno == libc::ENOENT => return Ok(()),
            // An older kernel does not know the message.
            Some((_, refusal)) if matches!(refusal.errno, libc::EINVAL | libc::EOPNOTSUPP) => {
                *destroys = false;
            }
            Some((index, refusal)) => {
                return Err(refused("removing", elements.get(index), &refusal));
            }
        }
    }
    remove_by_delete(socket, elements)
}

/// For kernels before 6.3, which only have a delete that fails for a missing element: the
/// same transaction adds each element first.
pub(super) fn remove_by_delete(
    socket: &mut Socket,
    elements: &[Element],
) -> Result<(), DataplaneError> {
    let changes: Vec<_> = elements
        .iter()
        .flat_map(|e| {
            let add = (NEW_SET_ELEMENT, CREATE, message::of_element(e, true));
            [add, (DELETE_SET_ELEMENT, 0, message::of_element(e, false))]
        })
        .collect();
    match send(socket, &changes)? {
        None => Ok(()),
        Some((_, refusal)) if refusal.errno == libc::ENOENT => Ok(()),
        Some((index, refusal)) => Err(refused("removing", elements.get(index / 2), &refusal)),
    }
}

/// The first refusal, with the index of the refused change.
fn send(
    socket: &mut Socket,
    changes: &[(u16, u16, Vec<u8>)],
) -> Result<Option<(usize, Refusal)>, DataplaneError> {
    if changes.is_empty() {
        return Ok(None);
    }
    let results = socket
        .batch(message::transaction(changes))
        .map_err(failed("changing elements of the nftables tables"))?;
    let refusal = results.into_iter().enumerate().find_map(|(i, result)| Some((i, result.err()?)));
    // The batch's opening message comes before the changes.
    Ok(refusal.map(|(i, refusal)| (i.saturating_sub(1), refusal)))
}

fn refused(verb: &str, element: Option<&Element>, refusal: &Refusal) -> DataplaneError {
    let what = element.map_or_else(|| "elements".into(), Element::describe);
    DataplaneError::Kernel { operation: format!("{verb} {what}"), errno: refusal.to_string() }
}
