//! The embedded eBPF object is what the loader expects.

mod common;

use common::require::require;

/// `e_machine` of BPF (`include/uapi/linux/elf-em.h`).
const EM_BPF: u16 = 247;

/// `e_type` of a relocatable file (ELF specification, "ELF Header").
const ET_REL: u16 = 1;

#[test]
fn the_embedded_object_is_relocatable_bpf_with_btf() {
    require!(Object);
    let object = sg_userspace::object::bytes().unwrap();
    assert_eq!(
        object.as_ptr().align_offset(8),
        0,
        "an ELF parser reads it in place"
    );
    assert_eq!(object[..4], *b"\x7fELF");
    let half_word = |at: usize| u16::from_ne_bytes([object[at], object[at + 1]]);
    assert_eq!((half_word(16), half_word(18)), (ET_REL, EM_BPF));
    for section in [b".BTF\0".as_slice(), b".BTF.ext\0", b".maps\0"] {
        let name = String::from_utf8_lossy(section);
        assert!(
            object
                .windows(section.len())
                .any(|window| window == section),
            "no {name}"
        );
    }
}

#[test]
fn debug_sections_are_left_out() {
    require!(Object);
    let object = sg_userspace::object::bytes().unwrap();
    let section = b".debug_info\0";
    assert!(
        !object
            .windows(section.len())
            .any(|window| window == section)
    );
}
