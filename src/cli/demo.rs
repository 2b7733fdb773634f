//! demo
use super::arguments::DemoArguments;
use super::site::Site;
use super::ui::Failure;
pub(super) fn run(_: &Site, _: &DemoArguments) -> Result<u8, Failure> {
    Ok(0)
}
