//! `sgctl import`: what fetches a definition from where it is kept.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Subcommand;

/// Print the commands that fetch a definition.
#[derive(clap::Args)]
pub(crate) struct Import {
    #[command(subcommand)]
    cloud: Cloud,
}

#[derive(Subcommand)]
enum Cloud {
    Aws(Aws),
}

/// Print a shell script that writes a region's security groups into a directory.
///
/// It calls the AWS CLI, with your credentials, and only asks: ec2:DescribeSecurityGroups,
/// ec2:DescribeSecurityGroupRules, ec2:DescribeNetworkInterfaces, ec2:DescribeManagedPrefixLists and
/// ec2:GetManagedPrefixListEntries. What it writes is read by `sgctl check DIR` and `sgctl apply DIR` as it
/// is. Arguments of the script go to each call.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sgctl import aws dump                          look at it
  sgctl import aws dump | sh                     fetch, and then:
  sgctl check dump
  sgctl import aws dump --region eu-west-1 --profile prod | sh
  sgctl import aws dump | sh -s -- --no-verify-ssl")]
struct Aws {
    /// Directory that the script writes to; it is made if it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Region to ask for [default: as the AWS CLI is configured]
    #[arg(long)]
    region: Option<OsString>,
    /// Profile of the AWS CLI's configuration to ask with [default: as it is configured]
    #[arg(long)]
    profile: Option<OsString>,
}

impl Import {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let Cloud::Aws(aws) = &self.cloud;
        // As it is: a name of a directory is bytes, and quoted.
        io::stdout().lock().write_all(&aws.script())?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Aws {
    fn script(&self) -> Vec<u8> {
        // What begins with `-` is no directory for `cd`, whatever stands before it.
        let directory = match self.directory.as_os_str().as_bytes() {
            [b'-', ..] => PathBuf::from(".").join(&self.directory),
            _ => self.directory.clone(),
        };
        let mut options = Vec::new();
        for (name, value) in [("--region", &self.region), ("--profile", &self.profile)] {
            if let Some(value) = value {
                options.extend([b" ", name.as_bytes(), b" ", &quoted(value)].concat());
            }
        }
        if !options.is_empty() {
            options = [b"set --", &*options, b" \"$@\"\n"].concat();
        }
        let directory = quoted(directory.as_os_str());
        [
            BEGINNING.as_bytes(),
            &options,
            b"mkdir -p ",
            &directory,
            b"\nCDPATH= cd ",
            &directory,
            CALLS.as_bytes(),
        ]
        .concat()
    }
}

const BEGINNING: &str = "\
#!/bin/sh
# Writes what a region's security groups are into a directory that sgctl reads as it is.
# Arguments go to each call of the AWS CLI.
set -eu
umask 077
";

/// The calls, in the directory. Entries do not say whose they are, so that their files are called after the lists;
/// of the lists of AWS itself only those are fetched that a rule names.
const CALLS: &str = r#"
aws ec2 describe-security-groups --output json "$@" > security-groups.json
aws ec2 describe-security-group-rules --output json "$@" > security-group-rules.json
aws ec2 describe-network-interfaces --output json "$@" > network-interfaces.json
aws ec2 describe-managed-prefix-lists --output json "$@" > prefix-lists.json
of_rules=$(aws ec2 describe-security-group-rules --query 'SecurityGroupRules[?PrefixListId].[PrefixListId]' --output text "$@")
own=$(aws ec2 describe-managed-prefix-lists --query 'PrefixLists[?OwnerId!=`AWS`].[PrefixListId]' --output text "$@")
for list in $(printf '%s\n' $of_rules $own | sort -u); do
    aws ec2 get-managed-prefix-list-entries --prefix-list-id "$list" --output json "$@" > "$list.json"
done
"#;

/// A word of a POSIX shell.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut quoted = OsString::from("'").into_vec();
    for byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(b"'\\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(directory: &str, region: Option<&str>) -> String {
        let aws = Aws {
            directory: directory.into(),
            region: region.map(Into::into),
            profile: None,
        };
        String::from_utf8(aws.script()).unwrap()
    }

    #[test]
    fn words_are_quoted() {
        let text = script("it's; rm -rf $HOME\n", Some("$(id)"));
        assert!(
            text.contains("mkdir -p 'it'\\''s; rm -rf $HOME\n'\n"),
            "{text}"
        );
        assert!(text.contains("set -- --region '$(id)' \"$@\"\n"), "{text}");
        assert!(script("-p", None).contains("mkdir -p './-p'\nCDPATH= cd './-p'\n"));
    }
}
