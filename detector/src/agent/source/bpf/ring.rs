//! A ring buffer that wakes the program when there is something to read.

use aya::{
    Ebpf,
    maps::{MapData, MapError, RingBuf},
};
use thiserror::Error;
use tokio::io::unix::AsyncFd;

use crate::agent::source::spool::Spool;

/// A ring of the kernel side.
pub struct Ring {
    fd: AsyncFd<RingBuf<MapData>>,
    name: &'static str,
}

/// Why a ring cannot be read.
#[derive(Debug, Error)]
pub enum RingError {
    /// The object has no such map: kernel side and user side are not of one build.
    #[error("the kernel object has no ring {0}")]
    Missing(&'static str),
    /// The ring cannot be mapped.
    #[error("mapping the ring {name}")]
    Map {
        /// Name of the ring.
        name: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// The ring cannot be waited for.
    #[error("waiting for the ring {name}")]
    Wait {
        /// Name of the ring.
        name: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Ring {
    /// Takes the ring `name` out of the loaded object. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If there is no such ring or it cannot be mapped or waited for.
    pub fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, RingError> {
        let map = ebpf.take_map(name).ok_or(RingError::Missing(name))?;
        let ring = RingBuf::try_from(map).map_err(|source| RingError::Map { name, source })?;
        // SAFETY: `RingBuf` owns its descriptor, hands out the same one at each call, and `AsyncFd` owns the ring, so that
        // the descriptor stays open and stays this ring's as long as it is registered.
        let fd = unsafe { AsyncFd::register(ring) }
            .map_err(|error| RingError::Wait { name, source: std::io::Error::from(error) })?;
        Ok(Self { fd, name })
    }

    /// Waits until there may be something to read. The ring must then be drained: it wakes again only for records that are
    /// written after it was found empty.
    ///
    /// # Errors
    /// If the ring cannot be waited for.
    pub async fn wait(&self) -> Result<(), RingError> {
        match self.fd.readable().await {
            Ok(mut guard) => {
                guard.clear_ready();
                Ok(())
            }
            Err(source) => Err(RingError::Wait { name: self.name, source }),
        }
    }

    /// Copies the oldest record into `record`, replacing what was there, and gives its place in the ring free, but not
    /// before it is in `spool`, if there is one. Returns false if no record is ready.
    pub fn next(&mut self, record: &mut Vec<u8>, spool: Option<&mut Spool>) -> bool {
        take(self.fd.get_mut(), record, spool)
    }
}

/// As [`Ring::next`], of a ring that nobody waits for.
pub(super) fn take(ring: &mut RingBuf<MapData>, record: &mut Vec<u8>, spool: Option<&mut Spool>) -> bool {
    let Some(item) = ring.next() else { return false };
    record.clear();
    record.extend_from_slice(&item);
    if let Some(spool) = spool {
        spool.append(&item);
    }
    // Here `item` goes, and with it the record's place.
    true
}
