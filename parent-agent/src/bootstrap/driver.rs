//! Step `driver`: the kernel's device for enclaves.

use super::{Check, Outcome, Setup};

const DEVICE: &str = "/dev/nitro_enclaves";
const MODULE: &str = "/sys/module/nitro_enclaves";

pub(super) fn check(setup: &Setup<'_>) -> Check {
    if setup.host.exists(DEVICE) {
        return Check::Done(format!("{DEVICE} is there"));
    }
    Check::Todo("load the module nitro_enclaves".to_owned())
}

pub(super) fn apply(setup: &Setup<'_>) -> Outcome<()> {
    let loaded = setup.run("modprobe", &["nitro_enclaves"]);
    if setup.host.exists(DEVICE) {
        return Ok(());
    }
    let reason = match loaded {
        Err(error) => error,
        Ok(()) if setup.host.exists(MODULE) => {
            format!("the module is loaded, but there is no {DEVICE}")
        }
        Ok(()) => format!("there is no {DEVICE}"),
    };
    Err(format!(
        "{reason}; launch the instance with EnclaveOptions enabled, on a type that supports enclaves, with a kernel that has CONFIG_NITRO_ENCLAVES"
    ))
}
