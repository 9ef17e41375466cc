//! Judges what a dying kernel sent: the panic itself, in the extended format, with the name of its node.

use anyhow::{Context as _, Result, ensure};

/// What must be among it.
const PANIC: &str = "Kernel panic - not syncing: sysrq triggered crash";

/// Whether the panic came, in the extended format, and the node with it where the kernel tells it: `userdata`.
pub(super) fn judge(datagrams: &[String], userdata: bool) -> Result<()> {
    let panic = datagrams.iter().find(|text| text.contains(PANIC)).with_context(|| {
        format!("of {} datagrams none is the panic; the last: {:?}", datagrams.len(), datagrams.last())
    })?;
    let head = panic.split(';').next().unwrap_or_default();
    ensure!(head.split(',').count() >= 4, "it is not in the extended format: {panic:?}");
    ensure!(!userdata || panic.contains("\n detector_node=guest"), "it does not tell its node: {panic:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_panic_is_found_in_the_extended_format_only() {
        let words = |text: &str, userdata| judge(&[text.replace('~', PANIC)], userdata);
        assert!(words("0,5,6,-;~", false).is_ok());
        assert!(words("[ 1.0] ~", false).is_err());
        assert!(judge(&[], false).is_err());
    }

    #[test]
    fn a_kernel_with_userdata_has_to_tell_its_node() {
        let words = |text: &str| judge(&[text.replace('~', PANIC)], true);
        assert!(words("6.12.1,0,5,6,-;~\n detector_node=guest\n").is_ok());
        assert!(words("6.12.1,0,5,6,-;~\n detector_node=other\n").is_err());
        assert!(words("6.12.1,0,5,6,-;~").is_err());
    }
}
