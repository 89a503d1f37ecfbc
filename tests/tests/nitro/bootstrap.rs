//! `bootstrap` with the driver's rules for memory and CPUs.

use enclave_tests::nitro::{Layout, Parent};

use crate::{CONFIG, POOL, boot, configuration, findings, pages};

/// The states of the steps that the driver has to do with.
fn reserve(parent: &mut Parent, arguments: &[&str]) -> (i32, Vec<String>) {
    let command = ["bootstrap", "--until", "cpus", "--json"];
    let ended = parent.agent(&[&command, arguments].concat()).unwrap();
    let states = findings(&ended).into_iter().map(|(_, state, _)| state);
    (ended.code.unwrap(), states.collect())
}

#[test]
fn bootstrap_reserves_on_one_node_and_gives_all_of_it_back() {
    let mut parent = boot(&Layout::two_nodes(), &[]);
    // Others have reserved some on both nodes.
    for node in [0, 1] {
        let folder = format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB");
        parent
            .write(&format!("{folder}/nr_hugepages"), "3")
            .unwrap();
    }
    let online = "/sys/devices/system/cpu/online";
    parent
        .write(CONFIG, &configuration(&[("a", 2, 257)]))
        .unwrap();
    let planned = parent.agent(&["preflight", "--json"]).unwrap();
    assert_eq!(planned.code, Some(0), "{planned:?}");
    for (name, state, detail) in findings(&planned).into_iter().skip(1).take(3) {
        assert_eq!(state, "todo", "{name}: {detail}");
    }
    let all = ["done", "done", "done"];
    assert_eq!(
        reserve(&mut parent, &[]),
        (0, all.map(str::to_owned).into())
    );
    // The second node has more cores for enclaves; 257 MiB are 129 pages.
    assert_eq!(parent.text(POOL).unwrap(), "10,11");
    assert_eq!(parent.text(online).unwrap(), "0-9");
    assert_eq!(pages(&mut parent, 1, "nr"), 129);
    assert_eq!(pages(&mut parent, 0, "nr"), 3);

    // The node's CPUs of the pool are offline now.
    let all = ["ok", "ok", "ok"];
    assert_eq!(
        reserve(&mut parent, &[]),
        (0, all.map(str::to_owned).into())
    );
    assert_eq!(pages(&mut parent, 0, "nr"), 3);

    // A pool that is too small is replaced.
    parent
        .write(CONFIG, &configuration(&[("a", 6, 256)]))
        .unwrap();
    let all = ["ok", "ok", "done"];
    assert_eq!(
        reserve(&mut parent, &[]),
        (0, all.map(str::to_owned).into())
    );
    assert_eq!(parent.text(POOL).unwrap(), "6,7,8,9,10,11");
    // One that is larger than it must be suffices.
    parent
        .write(CONFIG, &configuration(&[("a", 4, 256)]))
        .unwrap();
    let all = ["ok", "ok", "ok"];
    assert_eq!(
        reserve(&mut parent, &[]),
        (0, all.map(str::to_owned).into())
    );

    for _ in 0..2 {
        let all = ["undone", "undone", "undone"];
        let undone = reserve(&mut parent, &["--undo"]);
        assert_eq!(undone, (0, all.map(str::to_owned).into()));
        assert_eq!(parent.text(POOL).unwrap(), "");
        assert_eq!(parent.text(online).unwrap(), "0-11");
        assert_eq!(pages(&mut parent, 0, "nr"), 3);
        assert_eq!(pages(&mut parent, 1, "nr"), 3);
    }
    assert_eq!(parent.device.faults(), [""; 0]);
}
