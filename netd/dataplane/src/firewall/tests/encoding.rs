//! Bytes, to the letter: as `nft --debug=netlink,mnl` shows them for the same elements.

use super::samples::{bridged, port};
use crate::firewall::{
    attributes::{each, find, find_text, nest, put, put_text},
    elements::{self, Part, bytes},
    message,
};
use netd_domain::Protocol;

#[test]
fn an_owner_is_name_mac_and_address_each_padded_to_four_bytes() {
    let wiring = bridged(0x0123_4567_89ab, "cni0", &["10.88.0.5/16"]);
    let element = &elements::of_endpoint(&wiring)[0];
    let wanted = b"nd0123456789ab\0\0\x0a\x58\x0a\x58\x00\x05\0\0\x0a\x58\x00\x05";
    assert_eq!(bytes(&element.key), wanted);
    let shown = r#""nd0123456789ab" . 0a:58:0a:58:00:05 . 10.88.0.5"#;
    assert_eq!(elements::text(&element.key), shown);
}

#[test]
fn a_host_port_is_protocol_and_port_and_leads_to_address_and_port() {
    let mut wiring = bridged(1, "cni0", &["10.88.0.5/16", "fd00::5/64"]);
    wiring.port_mappings = vec![port(Protocol::Tcp, (None, 8080), 80)];
    let ports: Vec<_> =
        elements::of_endpoint(&wiring).into_iter().filter(|e| !e.data.is_empty()).collect();
    let names: Vec<_> = ports.iter().map(|e| e.set.name).collect();
    assert_eq!(names, ["ports4", "ports6"]);
    assert_eq!(bytes(&ports[0].key), [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
    assert_eq!(bytes(&ports[0].data), [10, 88, 0, 5, 0, 80, 0, 0]);
    assert_eq!(bytes(&ports[1].data).len(), 20);
    assert_eq!(ports[0].host_port().unwrap().to_string(), "8080/tcp");
}

#[test]
fn a_mapping_of_one_host_address_is_of_its_family_only_and_0000_means_all_of_ipv4() {
    let mut wiring = bridged(1, "cni0", &["10.88.0.5/16", "fd00::5/64"]);
    wiring.port_mappings = vec![
        port(Protocol::Udp, (Some("192.0.2.1"), 53), 53),
        port(Protocol::Udp, (Some("::"), 54), 53),
        port(Protocol::Udp, (Some("0.0.0.0"), 55), 53),
    ];
    let named: Vec<_> = elements::of_endpoint(&wiring)
        .iter()
        .filter_map(|e| Some(format!("{} {}", e.set.name, e.host_port()?)))
        .collect();
    assert_eq!(named, ["bound4 192.0.2.1:53/udp", "ports6 54/udp", "ports4 55/udp"]);
}

#[test]
fn an_element_message_is_nested_list_element_key_and_data() {
    let mut wiring = bridged(1, "cni0", &["10.88.0.5/16"]);
    wiring.port_mappings = vec![port(Protocol::Tcp, (None, 8080), 80)];
    let element = elements::of_endpoint(&wiring).pop().unwrap();
    let head = b"\x01\0\0\0\x09\0\x01\0netd\0\0\0\0\x0b\0\x02\0ports4\0\0";
    let key = b"\x10\0\x01\x80\x0c\0\x01\0\x06\0\0\0\x1f\x90\0\0";
    let data = b"\x10\0\x02\x80\x0c\0\x01\0\x0a\x58\0\x05\0\x50\0\0";
    let whole = [&head[..], b"\x28\0\x03\x80\x24\0\x01\x80", key, data].concat();
    assert_eq!(message::of_element(&element, true), whole);
    let short = [&head[..], b"\x18\0\x03\x80\x14\0\x01\x80", key].concat();
    assert_eq!(message::of_element(&element, false), short);
}

#[test]
fn the_link_local_address_is_made_of_the_mac() {
    let ip = elements::link_local("0a:58:0a:58:00:05".parse().unwrap());
    assert_eq!(ip.to_string(), "fe80::858:aff:fe58:5");
    assert_eq!(elements::text(&[Part::Raw(ip)]), "0xfe8000000000000008580afffe580005");
}

#[test]
fn attributes_are_read_back_and_cut_off_ones_end_the_list() {
    let mut out = Vec::new();
    put_text(&mut out, 1, "netd");
    nest(&mut out, 3, |inner| put(inner, 7, &[1, 2, 3]));
    assert_eq!(find_text(&out, 1), Some("netd"));
    assert_eq!(find(find(&out, 3).unwrap(), 7), Some(&[1u8, 2, 3][..]));
    for end in 0..out.len() {
        assert!(each(&out[..end]).count() <= 2);
    }
    assert_eq!(each(&[0, 0, 1, 0]).count(), 0);
    assert_eq!(each(&[3, 0, 1, 0]).count(), 0);
}
