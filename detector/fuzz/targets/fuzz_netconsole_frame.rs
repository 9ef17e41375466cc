//! Any bytes as a datagram of netconsole: a frame or an error, and text that can be shown; never a panic.

#![no_main]

use detector::controller::decode::frame::{self, Frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match frame::parse(bytes) {
        Ok(Frame::Extended(record)) => {
            if let Some(place) = record.fragment {
                assert!(place.offset + record.body.len() <= place.total && place.total <= frame::MAX_RECORD_BYTES);
            }
            let userdata = record.userdata().unwrap_or_default();
            for value in [userdata.node, userdata.boot_id, userdata.secret].into_iter().flatten() {
                assert!(value.len() <= 253 && value.bytes().all(|byte| byte.is_ascii_graphic()), "{value:?}");
            }
        }
        Ok(Frame::Basic(text)) => assert!(!text.is_empty()),
        Err(_) => {}
    }
});
