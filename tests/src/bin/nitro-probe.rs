//! Makes the calls of the kernel's driver of Nitro Enclaves that its argument says
//! (`enclave_tests::nitro::probe`), in a parent instance of the tests.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use enclave_host::hypervisor::nitro_driver::{
    DEVICE, Driver, Machine, Pages, Refused, Region, take_pages_of,
};
use enclave_tests::nitro::IMAGE;
use enclave_tests::nitro::probe::{At, Outcome, Step};

/// The option of the process that has a machine's descriptor as standard input.
const ELSEWHERE: &str = "--elsewhere";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcomes = match arguments.as_slice() {
        [option, cpu] if option == ELSEWHERE => {
            let descriptor = io::stdin().as_fd().try_clone_to_owned()?;
            let machine = Machine::from(descriptor);
            let cpu: u32 = cpu.parse()?;
            serde_json::to_string(&outcome(machine.add_cpu(cpu).map(u64::from)))?
        }
        [scripts] => {
            let scripts: Vec<Vec<Step>> = serde_json::from_str(scripts)?;
            let outcomes: anyhow::Result<Vec<_>> = scripts.iter().map(|it| run(it)).collect();
            serde_json::to_string(&outcomes?)?
        }
        _ => bail!("usage: nitro-probe SCRIPTS"),
    };
    io::stdout().write_all(outcomes.as_bytes())?;
    Ok(())
}

/// What the steps work on.
struct Probe {
    driver: Driver,
    machines: Vec<Machine>,
    regions: Vec<Region>,
    /// Two huge pages' worth of memory, one of which begins as one does.
    ordinary: Vec<u8>,
}

fn run(script: &[Step]) -> anyhow::Result<Vec<Outcome>> {
    let mut probe = Probe {
        driver: Driver::open(Path::new(DEVICE))?,
        machines: Vec::new(),
        regions: Vec::new(),
        ordinary: Vec::new(),
    };
    let mut outcomes = Vec::new();
    for step in script {
        if matches!(step, Step::Hold) {
            let mut line = serde_json::to_string(&outcomes)?;
            line.push('\n');
            io::stdout().write_all(line.as_bytes())?;
            io::stdout().flush()?;
            loop {
                std::thread::park();
            }
        }
        let done = probe.take(step).with_context(|| format!("{step:?}"))?;
        let is_refused = matches!(done, Outcome::Refused { .. });
        outcomes.push(done);
        if is_refused {
            break;
        }
    }
    Ok(outcomes)
}

impl Probe {
    fn take(&mut self, step: &Step) -> anyhow::Result<Outcome> {
        Ok(match *step {
            Step::Create => outcome(self.driver.create().map(|machine| {
                self.machines.push(machine);
                0
            })),
            Step::ImageOffset(kind) => outcome(self.machine()?.image_offset(kind)),
            Step::Map { pages, node } => {
                take_pages_of(node)?;
                self.regions.push(Region::map(Pages::Small, pages)?);
                Outcome::Done(0)
            }
            Step::Load => {
                let offset = usize::try_from(self.machine()?.image_offset(1)?)?;
                let mut image = Vec::new();
                File::open(IMAGE)?.read_to_end(&mut image)?;
                let region = self.regions.last_mut().context("nothing is mapped")?;
                let target = region.as_mut().get_mut(offset..);
                let target = target.and_then(|target| target.get_mut(..image.len()));
                target.context("too few pages")?.copy_from_slice(&image);
                Outcome::Done(0)
            }
            Step::AddMemory { flags, at, size } => {
                let address = self.address(at)?;
                outcome(self.machine()?.add_memory(flags, address, size).map(|()| 0))
            }
            Step::AddCpu(cpu) => outcome(self.machine()?.add_cpu(cpu).map(u64::from)),
            Step::Start { flags, cid } => outcome(self.machine()?.start(flags, cid)),
            Step::AddCpuElsewhere(cpu) => self.elsewhere(cpu)?,
            Step::Hold => bail!("it is not for a machine"),
        })
    }

    fn machine(&self) -> anyhow::Result<&Machine> {
        self.machines.last().context("there is no machine")
    }

    fn address(&mut self, at: At) -> anyhow::Result<u64> {
        Ok(match at {
            At::Mapped(offset) => {
                let region = self.regions.last().context("nothing is mapped")?;
                region.address() + offset
            }
            At::Ordinary => {
                let page = Pages::Small.bytes();
                self.ordinary = vec![1; 2 * usize::try_from(page)?];
                let start = self.ordinary.as_ptr().addr() as u64;
                start.next_multiple_of(page)
            }
            At::Address(address) => address,
        })
    }

    /// Has another process give the machine a CPU.
    fn elsewhere(&mut self, cpu: u32) -> anyhow::Result<Outcome> {
        let machine = self.machines.pop().context("there is no machine")?;
        let descriptor = OwnedFd::from(machine);
        let output = Command::new(std::env::current_exe()?)
            .args([ELSEWHERE, &cpu.to_string()])
            .stdin(Stdio::from(descriptor.try_clone()?))
            .stderr(Stdio::inherit())
            .output()?;
        self.machines.push(descriptor.into());
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

fn outcome(result: Result<u64, Refused>) -> Outcome {
    match result {
        Ok(answer) => Outcome::Done(answer),
        Err(refused) => Outcome::Refused {
            code: refused.code(),
            words: refused.to_string(),
        },
    }
}
