//! The agent on the EC2 instance.
