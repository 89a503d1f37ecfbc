//! Transports and wire protocol between enclave-init and parent-agent.
