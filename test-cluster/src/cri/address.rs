//! The addresses of Pods.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Numbers in each of the last two bytes that Pods have: from 1 on, so that none is the node's.
const PER_BYTE: u16 = 250;
/// The most Pods at a time. One more gets no address.
const MAX_ADDRESSES: u16 = PER_BYTE * PER_BYTE;

/// Which addresses of 10.244.0.0/16 are taken.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    next: u16,
    taken: BTreeSet<Ipv4Addr>,
}

impl Addresses {
    /// Takes one, and none that was given back a moment ago: who still asks for it is to meet nobody.
    pub(super) fn take(&mut self) -> Option<Ipv4Addr> {
        for _ in 0..MAX_ADDRESSES {
            let number = self.next;
            self.next = (number + 1) % MAX_ADDRESSES;
            let byte = |number: u16| u8::try_from(number % PER_BYTE + 1).ok();
            let address = Ipv4Addr::new(10, 244, byte(number / PER_BYTE)?, byte(number)?);
            if self.taken.insert(address) {
                return Some(address);
            }
        }
        None
    }

    /// Gives one back.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_given_anew_after_all_others() {
        let mut addresses = Addresses::default();
        let first = addresses.take().unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 244, 1, 1));
        addresses.release(first);
        let others: BTreeSet<Ipv4Addr> = (1..MAX_ADDRESSES).map(|_| addresses.take().unwrap()).collect();
        assert!(others.len() == usize::from(MAX_ADDRESSES) - 1 && !others.contains(&first));
        assert!(others.iter().all(|address| address.octets()[0..2] == [10, 244] && address.octets()[2] <= 250));
        assert_eq!(addresses.take(), Some(first));
        assert_eq!(addresses.take(), None);
    }
}
