//! The registers that are measured into and locked before the workload is started.

use attestation::PCR_COUNT;
use manifest::{MeasuredConfig, OpenRegisters};
use nsm::NsmError;

use crate::error::InitError;
use crate::family;
use crate::security_module::{Module, SecurityModule};

/// How many registers there are, as the module counts.
#[expect(clippy::cast_possible_truncation, reason = "32")]
pub(crate) const REGISTERS: u16 = PCR_COUNT as u16;

/// Measures the family, if enclaves hand its seed over, and locks what is not the workload's.
pub(crate) async fn measure_and_lock(
    nsm: &SecurityModule,
    config: &MeasuredConfig,
) -> Result<(), InitError> {
    let family = family::measured(config)?;
    let open = config.attestation.open_registers.clone();
    nsm.run(move |nsm| {
        if let Some((register, measured)) = family {
            nsm.extend_pcr(register, &measured)?;
        }
        lock_unused(nsm, &open)
    })
    .await?;
    Ok(())
}

/// Locks every register but the open ones: a value that nobody meant to be
/// measured must not come into a document.
fn lock_unused(nsm: &mut Module, open: &OpenRegisters) -> Result<(), NsmError> {
    let first_open = open.first().map_or(REGISTERS, |&index| index.into());
    nsm.lock_pcrs(first_open)?;
    for index in first_open..REGISTERS {
        if !is_open(open, index) {
            nsm.lock_pcr(index)?;
        }
    }
    Ok(())
}

/// Whether the workload may extend and lock this register.
pub(crate) fn is_open(open: &OpenRegisters, index: u16) -> bool {
    open.iter().any(|&register| u16::from(register) == index)
}
