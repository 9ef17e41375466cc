//! The kernel's own count of datagrams that it had no room for: the last column of `/proc/net/udp` (`udp4_format_sock`,
//! `net/ipv4/udp.c`; proc_pid_net(5)).

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
};

/// Columns before that of the inode; and the one that follows has the drops.
const INODE_COLUMN: usize = 9;
const DROPS_COLUMN: usize = 12;

/// Bytes of a line at most; the kernel's are 150.
const MAX_LINE: u64 = 1024;

/// Counter of one socket.
#[derive(Debug)]
pub(super) struct Drops {
    inode: u64,
    path: &'static str,
    /// As the kernel last told: a number of 32 bits, which begins anew after its end.
    last: u32,
    sum: u64,
}

impl Drops {
    pub(super) fn new(inode: u64, is_ipv6: bool) -> Self {
        let path = if is_ipv6 { "/proc/self/net/udp6" } else { "/proc/self/net/udp" };
        Self { inode, path, last: 0, sum: 0 }
    }

    /// All by now; `None`: the kernel does not tell.
    pub(super) fn read(&mut self) -> Option<u64> {
        let table = BufReader::new(File::open(self.path).ok()?);
        let now = find(table, self.inode).ok().flatten()?;
        Some(self.add(now))
    }

    fn add(&mut self, now: u32) -> u64 {
        self.sum += u64::from(now.wrapping_sub(std::mem::replace(&mut self.last, now)));
        self.sum
    }
}

/// Drops of the socket with that inode.
fn find(mut table: impl BufRead, inode: u64) -> io::Result<Option<u32>> {
    let mut line = String::new();
    loop {
        line.clear();
        if io::Read::take(&mut table, MAX_LINE).read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut columns = line.split_ascii_whitespace();
        if columns.nth(INODE_COLUMN).and_then(|column| column.parse().ok()) == Some(inode) {
            return Ok(columns.nth(DROPS_COLUMN - INODE_COLUMN - 1).and_then(|column| column.parse().ok()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when \
retrnsmt   uid  timeout inode ref pointer drops
 1193: 00000000000000000000000000000000:1A0A 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 \
00000000     0        0 4711 2 0000000000000000 17
 1194: 00000000000000000000000000000000:1A0B 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 \
00000000     0        0 4712 2 0000000000000000 4294967295
";

    #[test]
    fn drops_are_those_of_the_own_socket() {
        assert_eq!(find(TABLE.as_bytes(), 4711).unwrap(), Some(17));
        assert_eq!(find(TABLE.as_bytes(), 4712).unwrap(), Some(u32::MAX));
        assert_eq!(find(TABLE.as_bytes(), 1).unwrap(), None);
        assert_eq!(find(&b"\n\n x"[..], 1).unwrap(), None);
    }

    #[test]
    fn the_count_goes_on_when_that_of_the_kernel_begins_anew() {
        let mut drops = Drops::new(1, true);
        assert_eq!(drops.add(u32::MAX - 1), u64::from(u32::MAX - 1));
        assert_eq!(drops.add(3), u64::from(u32::MAX) + 4);
        assert_eq!(drops.add(3), u64::from(u32::MAX) + 4);
    }
}
