//! Offloads of a device, by the ethtool ioctl.
//!
//! The structs are those of `include/uapi/linux/ethtool.h`, laid out here as rows of 32-bit words in
//! host byte order.

use std::{
    collections::BTreeSet,
    ffi::c_char,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
/// `ETH_SS_FEATURES`.
const FEATURES: u32 = 4;
/// `ETH_GSTRING_LEN`, in bytes.
const NAME: usize = 32;
/// `struct ethtool_get_features_block` in words: available, requested, active, never changed.
const BLOCK: usize = 4;

/// Names of the offloads that are on, as the kernel spells them (`net/ethtool/common.c`): of a device
/// of the calling thread's network namespace.
///
/// # Errors
/// The kernel's answer.
pub fn active(device: &str) -> io::Result<BTreeSet<String>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    let count = {
        // cmd, reserved, the mask of sets in two words, one count.
        let mut words = [GSSET_INFO, 0, 0, 0, 0];
        words[2..4].copy_from_slice(&mask(FEATURES));
        ask(&socket, device, &mut words)?;
        words[4] as usize
    };
    // cmd, set, count, names.
    let mut names = vec![0; 3 + count * NAME / size_of::<u32>()];
    names[..2].copy_from_slice(&[GSTRINGS, FEATURES]);
    names[2] = count as u32;
    ask(&socket, device, &mut names)?;
    // cmd, count of blocks, blocks.
    let blocks = count.div_ceil(u32::BITS as usize);
    let mut features = vec![0; 2 + blocks * BLOCK];
    features[..2].copy_from_slice(&[GFEATURES, blocks as u32]);
    ask(&socket, device, &mut features)?;
    Ok(read(&names[3..], &features[2..]))
}

fn mask(set: u32) -> [u32; 2] {
    let bytes = (1_u64 << set).to_ne_bytes();
    [
        u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    ]
}

/// Names of the bits that are active.
fn read(names: &[u32], blocks: &[u32]) -> BTreeSet<String> {
    let bytes: Vec<u8> = names.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0);
        String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
    };
    let active = |place: usize| {
        let word = blocks.get(place / 32 * BLOCK + 2).copied();
        word.unwrap_or(0) >> (place % 32) & 1 == 1
    };
    let names = bytes.chunks_exact(NAME).enumerate();
    names
        .filter(|(place, _)| active(*place))
        .map(|(_, bytes)| name(bytes))
        .collect()
}

/// One command; the answer overwrites it.
fn ask(socket: &Socket, device: &str, words: &mut [u32]) -> io::Result<()> {
    // SAFETY: all zero bits are a valid `ifreq`: bytes, and a union of numbers and pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let (place, end) = request.ifr_name.split_at_mut(libc::IFNAMSIZ - 1);
    if device.len() > place.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    end.fill(0);
    for (to, from) in place.iter_mut().zip(device.bytes()) {
        *to = from as c_char;
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: the name is terminated, and the kernel writes no more behind `ifru_data` than the
    // counts in `words` say, which the caller has made room for.
    let answer = unsafe {
        libc::ioctl(
            socket.as_fd().as_raw_fd(),
            libc::SIOCETHTOOL as libc::Ioctl,
            &raw mut request,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_word_of_a_block_says_what_is_on() {
        let mut names = [0_u32; 40 * NAME / 4];
        for place in 0..40 {
            let name = format!("f{place}");
            let mut word = [0; 4];
            word[..name.len()].copy_from_slice(name.as_bytes());
            names[place * NAME / 4] = u32::from_ne_bytes(word);
        }
        let blocks = [!0, !0, 1 | 1 << 31, !0, !0, !0, 1 << 7, !0];
        let on = ["f0", "f31", "f39"].map(str::to_owned);
        assert_eq!(read(&names, &blocks), BTreeSet::from(on));
        assert_eq!(read(&names, &[]), BTreeSet::new());
    }
}
