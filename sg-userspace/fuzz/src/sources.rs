//! Any text as files of any kind: what is true of definitions in TOML is true of all.

use sg_userspace::definition::{self, Device, Format, Lints, Source};

use super::definition::{SEPARATOR, holds};

/// The first byte names the kind of all files, by its place in [`Format::ALL`]; others leave it to be recognised by
/// content. Then come the files, with [`SEPARATOR`] between them.
pub fn run(input: &[u8]) {
    let [kind, files @ ..] = input else { return };
    let format = Format::ALL.get(usize::from(*kind)).copied();
    let sources: Vec<Source> = files
        .split(|byte| *byte == SEPARATOR)
        .take(4)
        .enumerate()
        .map(|(number, bytes)| {
            // Names tell what stands in some files, and what some are.
            let mut source = Source::new(&name(number, format), bytes.to_vec());
            source.format = format;
            source.found = number > 0;
            source
        })
        .collect();
    let device = Device {
        name: "eth0".into(),
        mac: Some([2, 0, 0x5e, 0, 0x53, 1]),
        addresses: vec![[10, 0, 1, 5].into()],
    };
    let devices = || Ok(vec![device.clone()]);
    let lints = Lints::default();
    holds(
        &sources,
        definition::examine(&sources, &devices, Some(&lints)),
    );
}

fn name(number: usize, format: Option<Format>) -> String {
    let ending = match format {
        Some(Format::Toml) => ".toml",
        Some(Format::Terraform) if number == 3 => ".tfvars",
        Some(Format::Terraform) => ".tf",
        Some(Format::CloudFormation) => ".yaml",
        Some(Format::Aws | Format::TerraformShow | Format::OpenStack) => ".json",
        None => "",
    };
    format!("pl-{number}{ending}")
}
