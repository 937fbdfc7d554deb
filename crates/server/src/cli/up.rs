//! `up`: the server, unless it runs already. What a newcomer types twice
//! must not end in an error the second time.

use super::instance::{Claim, Instance};
use super::{Failure, serve};
use crate::config::Settings;
use crate::exit_code::Exit;
use crate::output;

pub(super) fn up(settings: Settings) -> Result<Exit, Failure> {
    crate::store::make_home(&settings.config.home)?;
    match Instance::claim(&settings.config.home)? {
        Claim::Ours(instance) => serve::with_instance(settings, instance),
        Claim::Running(running) => {
            output::text(&running.to_string())?;
            Ok(Exit::Success)
        }
    }
}
