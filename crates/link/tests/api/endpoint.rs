//! Endpoints as text.

use link::Endpoint;
use proptest::prelude::*;

fn endpoints() -> impl Strategy<Value = Endpoint> {
    let path = || "/?[a-z0-9_:. -]{1,40}".prop_map(Into::into);
    prop_oneof![
        (any::<u32>(), any::<u32>()).prop_map(|(cid, port)| Endpoint::Vsock { cid, port }),
        path().prop_map(|path| Endpoint::Unix { path }),
        (path(), any::<u32>()).prop_map(|(path, port)| Endpoint::UnixConnect { path, port }),
    ]
}

proptest! {
    #[test]
    fn what_is_printed_is_parsed_to_the_same(endpoint in endpoints()) {
        prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
    }

    #[test]
    fn what_is_parsed_is_printed_the_same_but_for_leading_zeros(text in "(vsock|unix|unix-connect|tcp):[a-z0-9:/+-]{0,20}") {
        if let Ok(endpoint) = text.parse::<Endpoint>() {
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
        }
    }
}

#[test]
fn each_transport_has_its_form() {
    for (text, endpoint) in [
        ("vsock:3:7000", Endpoint::Vsock { cid: 3, port: 7000 }),
        (
            "vsock:4294967295:4294967295",
            Endpoint::Vsock {
                cid: u32::MAX,
                port: u32::MAX,
            },
        ),
        (
            "unix:/run/agent.sock",
            Endpoint::Unix {
                path: "/run/agent.sock".into(),
            },
        ),
        (
            "unix:relative:with:colons",
            Endpoint::Unix {
                path: "relative:with:colons".into(),
            },
        ),
        (
            "unix-connect:/run/a:b:7001",
            Endpoint::UnixConnect {
                path: "/run/a:b".into(),
                port: 7001,
            },
        ),
    ] {
        assert_eq!(text.parse::<Endpoint>().unwrap(), endpoint);
        assert_eq!(endpoint.to_string(), text);
    }
}

#[test]
fn anything_else_is_refused_with_the_forms() {
    for text in [
        "",
        "vsock",
        "vsock:",
        "vsock:3",
        "vsock:3:",
        "vsock::7000",
        "vsock:-1:7000",
        "vsock:+3:7000",
        "vsock:3:+7000",
        "vsock: 3:7000",
        "vsock:3:7000:1",
        "vsock:4294967296:7000",
        "vsock:3:4294967296",
        "VSOCK:3:7000",
        "unix:",
        "unix-connect:/run/a",
        "unix-connect::7000",
        "unix-connect:/run/a:",
        "unix-connect:/run/a:port",
        "tcp:127.0.0.1:80",
        "/run/agent.sock",
    ] {
        let error = text.parse::<Endpoint>().unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "`{text}` is not an endpoint: write `vsock:CID:PORT`, `unix:PATH` or `unix-connect:PATH:PORT`"
            )
        );
    }
}
