//! Any lines as the log of a dying kernel: findings and an excerpt within bounds; never a panic.

#![no_main]

use std::time::Duration;

use detector::{
    contract::incident::MAX_LOG_BYTES,
    controller::decode::{
        Header, Line, Userdata,
        boot::Boot,
        signature::{self, MAX_MODULES, MAX_TEXT_BYTES},
    },
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut boot = Boot::new();
    for (sequence, text) in (0..).zip(text.lines()) {
        let header = Header { facility: 0, level: 4, sequence, uptime: Duration::from_secs(sequence) };
        // Every third line comes in basic format.
        let header = (sequence % 3 != 2).then_some(header);
        let (text, userdata) = (text.to_owned(), Userdata::default());
        boot.push(&Line { header, release: None, text, userdata, torn: false });
    }
    let found = boot.findings();
    assert_eq!(found.cause.is_some(), found.panic.is_some() || found.signature.is_some());
    assert!([&found.panic, &found.signature].into_iter().flatten().all(|text| text.len() <= MAX_TEXT_BYTES));
    assert!(found.modules.len() <= MAX_MODULES && boot.excerpt().text().len() <= MAX_LOG_BYTES);
    std::hint::black_box(signature::of_texts(text.lines()));
});
