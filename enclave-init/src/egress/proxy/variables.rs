//! The variables by which programs find the proxy, and know what not to ask it for.

use manifest::{CREDENTIALS_ADDRESS, Environment, INIT_ADDRESS, MeasuredConfig, PROXY_PORT};

/// Both spellings of each: programs read one or the other. `ALL_PROXY` is not among them:
/// programs take it for SOCKS, and some fail where a library for that is missing.
const PROXIES: [[&str; 2]; 2] = [["HTTPS_PROXY", "https_proxy"], ["HTTP_PROXY", "http_proxy"]];
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// The exception of everything, which some programs know only alone.
const EVERYTHING: &str = "*";

/// What the workload's environment has of the proxy, if the image has one; it comes after
/// the image's own. A proxy that the image sets itself, in either spelling, is left alone.
/// What is inside the enclave no proxy can reach, so the image's exceptions are added to.
pub(crate) fn variables(
    config: &MeasuredConfig,
    environment: &Environment,
) -> Vec<(&'static str, String)> {
    if !config.network.proxy {
        return Vec::new();
    }
    let is_secret = |name: &str| {
        let mut secrets = config.secrets.iter();
        secrets.any(|secret| secret.env.as_deref() == Some(name))
    };
    let is_set = |name: &str| environment.contains_key(name) || is_secret(name);
    let proxy = format!("http://{INIT_ADDRESS}:{PROXY_PORT}");
    let unset = PROXIES
        .into_iter()
        .filter(|names| !names.iter().copied().any(is_set));
    let proxies = unset.flatten().map(|name| (name, proxy.clone()));
    let inside = format!(
        "localhost,127.0.0.1,::1,{INIT_ADDRESS},{CREDENTIALS_ADDRESS},{}",
        config.name
    );
    let images = |name: &str| {
        let mut spellings = [name].into_iter().chain(EXCEPTIONS);
        spellings.find_map(|name| environment.get(name).filter(|value| !value.is_empty()))
    };
    let all = |name: &'static str| match images(name).map(|images| images.trim()) {
        Some(EVERYTHING) => (name, EVERYTHING.to_owned()),
        Some(images) => (name, format!("{images},{inside}")),
        None => (name, inside.clone()),
    };
    // What is in a secret is not known here.
    let is_known = !EXCEPTIONS.into_iter().any(is_secret);
    let exceptions = EXCEPTIONS.into_iter().filter(|_| is_known).map(all);
    proxies.chain(exceptions).collect()
}
