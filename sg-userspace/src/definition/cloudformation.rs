use super::findings::Findings;
use super::read::Input;
use super::tree::File;

pub(super) fn read(inputs: &[Input<'_>], findings: &mut Findings) -> File {
    let _ = (inputs, findings);
    File::default()
}
