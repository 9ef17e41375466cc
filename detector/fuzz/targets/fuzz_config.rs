//! Any bytes as a file of settings: a whole config that can be compared with the default, or mistakes; never a panic.

#![no_main]

use detector::config::{Config, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| match parse("fuzz", bytes) {
    Ok(config) => {
        let differences = Config::default().differences(&config);
        assert_eq!(differences.is_empty(), config == Config::default());
        assert_eq!(config.at_run_time(&config), config);
    }
    Err(mistakes) => {
        assert!(mistakes.count() > 0);
        assert!(mistakes.lines().all(|line| !line.contains(char::is_control)));
    }
});
