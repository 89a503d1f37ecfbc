//! The variables by which programs find the proxy, and know what not to ask it for.

use manifest::{CREDENTIALS_ADDRESS, INIT_ADDRESS, MeasuredConfig, PROXY_PORT};

/// Both spellings of each: programs read one or the other. `ALL_PROXY` is not among them:
/// programs take it for SOCKS, and some fail where a library for that is missing.
const PROXIES: [[&str; 2]; 2] = [["HTTPS_PROXY", "https_proxy"], ["HTTP_PROXY", "http_proxy"]];
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// What the workload's environment has of the proxy, if the image has one. A variable that
/// the image sets itself, in either spelling, is left alone.
pub(crate) fn variables(config: &MeasuredConfig) -> Vec<(&'static str, String)> {
    if !config.network.proxy {
        return Vec::new();
    }
    let is_set = |name: &str| {
        let mut secrets = config.secrets.iter();
        config.workload.env.contains_key(name)
            || secrets.any(|secret| secret.env.as_deref() == Some(name))
    };
    let proxy = format!("http://{INIT_ADDRESS}:{PROXY_PORT}");
    let exceptions = format!(
        "localhost,127.0.0.1,::1,{INIT_ADDRESS},{CREDENTIALS_ADDRESS},{}",
        config.name
    );
    let proxies = PROXIES.map(|names| (names, proxy.clone()));
    let all = proxies.into_iter().chain([(EXCEPTIONS, exceptions)]);
    let unset = all.filter(|(names, _)| !names.iter().copied().any(is_set));
    unset
        .flat_map(|(names, value)| names.map(|name| (name, value.clone())))
        .collect()
}
