//! Which machine an enclave is, and whether one that runs is the one that is meant.

use std::path::Path;

use aws_lc_rs::digest::{SHA384, digest};
use link::target::{MAX_CONNECTIONS, connections};
use manifest::MemoryMib;

use super::Run;
use crate::attach::Facts;
use crate::cli::HypervisorKind;
use crate::error::Error;
use crate::guard::Guard;
use crate::hypervisor::{Hypervisor, Nitro, NitroOptions, Qemu, QemuOptions, Sim, SimOptions};
use crate::image::{Image, check_memory};

impl Run<'_> {
    pub(super) fn sim(&self, image: Image, directory: &Path) -> Sim {
        let options = SimOptions {
            name: self.name.clone(),
            memory: self.memory(),
            debug: self.args.debug,
            nsm_root: self.args.software_nsm_root.clone(),
        };
        Sim::new(image, options, directory)
    }

    pub(super) fn nitro(&self, image: &Image) -> Nitro {
        Nitro::new(NitroOptions {
            name: self.name.clone(),
            image: image.path().to_owned(),
            cpus: self.args.cpus.unwrap_or(self.host.cpus),
            memory: self.memory(),
            debug: self.args.debug,
        })
    }

    pub(super) fn qemu(&self, image: &Image, directory: &Path) -> Qemu {
        let options = QemuOptions {
            name: self.name.clone(),
            image: image.path().to_owned(),
            cpus: self.args.cpus.unwrap_or(self.host.cpus),
            memory: self.memory(),
            binary: self.args.qemu_binary.clone(),
            firmware: self.args.qemu_firmware.clone(),
            accelerator: self.args.qemu_accel,
            vhost_device_vsock: self.args.vhost_device_vsock.clone(),
        };
        Qemu::new(options, directory)
    }

    fn memory(&self) -> MemoryMib {
        self.args.memory_mib.unwrap_or(self.host.memory_mib)
    }

    /// Connections into the enclave that its init carries at a time: as many as its
    /// memory is for. A simulated enclave has its host's.
    pub(super) fn carried(&self) -> usize {
        match self.args.hypervisor {
            HypervisorKind::Sim => MAX_CONNECTIONS,
            HypervisorKind::Qemu | HypervisorKind::Nitro => connections(self.memory().bytes()),
        }
    }

    /// What an enclave is that is started with these arguments.
    fn facts<H: Hypervisor>(&self, hypervisor: &H) -> Facts {
        let runtime_config = hex::encode(digest(&SHA384, &self.runtime_config));
        let mut options = hypervisor.options();
        options.push(("--hypervisor", H::NAME.to_owned()));
        options.push(("--runtime-config", runtime_config));
        let options = options
            .into_iter()
            .map(|(option, value)| (option.to_owned(), value))
            .collect();
        Facts::new(self.pcrs.clone(), self.host.clone(), options)
    }

    /// What the enclave in the guard's folder is, once it is there: a new one is
    /// prepared, one that runs already must be what was asked for.
    pub(super) async fn prepare<H: Hypervisor>(
        &self,
        hypervisor: &mut H,
        guard: &Guard,
    ) -> Result<Facts, Error> {
        let wanted = self.facts(hypervisor);
        if guard.attached().is_some() {
            let found = Facts::read(guard.directory(), &self.target).await?;
            found.check(&wanted, &self.target)?;
            return Ok(found);
        }
        if H::LIMITS_MEMORY {
            check_memory(self.image_bytes, &self.host, self.memory())?;
        }
        hypervisor.prepare()?;
        wanted
            .write(guard.directory())
            .await
            .map_err(Error::system("the enclave's folder cannot be written"))?;
        Ok(wanted)
    }
}
