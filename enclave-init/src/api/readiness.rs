//! `GET /v1/readiness`: whether the workload is ready and well, or the enclave, where it cannot
//! be known which of several asks. `POST /v1/readiness`: the workload says so, as over the
//! notification socket.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use link::control::HealthState;
use serde::Deserialize;
use serde_json::json;

use super::failure::{Code, Failure};
use super::{Answer, Api, Caller};
use crate::readiness::{News, Unheard};

/// Longest status in bytes.
const MAX_STATUS: usize = 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Notification {
    state: Option<Said>,
    status: Option<String>,
}

/// What the workload says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Said {
    Ready,
    Alive,
    Stopping,
}

impl Notification {
    fn news(self) -> Result<News, Failure> {
        let Self { state, status } = self;
        if state.is_none() && status.is_none() {
            return Err(Failure::bad("there is neither a `state` nor a `status`"));
        }
        if status.as_ref().is_some_and(|text| text.len() > MAX_STATUS) {
            let reason = format!("status has more than {MAX_STATUS} bytes");
            return Err(Failure::bad(reason));
        }
        Ok(News {
            is_ready: state == Some(Said::Ready),
            is_alive: state == Some(Said::Alive),
            is_stopping: state == Some(Said::Stopping),
            status: status.map(String::into_bytes),
        })
    }
}

pub(super) async fn hear(caller: &Caller, request: Request<Incoming>) -> Result<Answer, Failure> {
    let notification: Notification = super::json(request).await?;
    let news = notification.news()?;
    let speaker = caller.speaker.as_ref().ok_or_else(|| {
        let reason = "the enclave has several workloads, and this address is that of all of them";
        Failure::new(Code::SpeakerUnknown, reason)
    })?;
    speaker.hear(news)?;
    Ok(Answer::empty())
}

pub(super) fn read(api: &Api, caller: &Caller) -> Answer {
    let state = match &caller.speaker {
        Some(speaker) => speaker.state(),
        None => api.readiness.state(),
    };
    let health = match state.health {
        HealthState::Starting => "starting",
        HealthState::Healthy => "healthy",
        HealthState::Unhealthy => "unhealthy",
    };
    Answer::json(
        StatusCode::OK,
        &json!({
            "state": health,
            "detail": state.detail,
            "restarts": state.restarts,
            "last_end": state.last_end,
        }),
    )
}

impl From<Unheard> for Failure {
    fn from(unheard: Unheard) -> Self {
        let code = match unheard {
            Unheard::Off => Code::NotifyOff,
            Unheard::EarlierRun => Code::EarlierRun,
        };
        Self::new(code, unheard.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_said_in_one_of_three_words_with_a_short_status() {
        let read = |text: &str| {
            let notification: Notification = serde_json::from_str(text).map_err(|_| ())?;
            notification.news().map_err(|_| ())
        };
        let news = read(r#"{"state": "ready", "status": "serving"}"#).unwrap();
        assert!(news.is_ready && !news.is_alive && !news.is_stopping);
        assert_eq!(news.status.as_deref(), Some(&b"serving"[..]));
        assert!(read(r#"{"state": "alive"}"#).unwrap().is_alive);
        assert!(read(r#"{"state": "stopping"}"#).unwrap().is_stopping);
        let longest = format!(r#"{{"status": "{}"}}"#, "x".repeat(MAX_STATUS));
        assert!(read(&longest).is_ok());
        for refused in [
            "{}",
            r#"{"state": "READY=1"}"#,
            r#"{"ready": true}"#,
            &longest.replacen('x', "xx", 1),
        ] {
            assert!(read(refused).is_err(), "{refused}");
        }
    }
}
