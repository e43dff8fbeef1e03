//! `--memory`: what a node may take, and what the machine allows.

use std::fs;
use std::path::{Path, PathBuf};

use super::End;

/// What may be asked for at least: 1 MiB.
const LEAST: usize = 1 << 20;

/// What the machine allows, where it doesn't tell: 1 GiB.
const USUAL: usize = 1 << 30;

/// Reads a number of bytes, or of KiB, MiB or GiB with a k, m or g behind it. Without a text: three quarters of what the
/// machine allows.
///
/// # Errors
/// It is no such number, less than 1 MiB, or more than the machine allows.
pub(super) fn limit(text: Option<&str>) -> Result<usize, End> {
    limit_of(text, machine(Path::new("/")))
}

/// The same on a machine that allows so much.
fn limit_of(text: Option<&str>, most: Option<usize>) -> Result<usize, End> {
    let Some(text) = text else {
        return Ok((most.unwrap_or(USUAL) / 4 * 3).max(LEAST));
    };
    let Some(bytes) = bytes(text).filter(|bytes| *bytes >= LEAST) else {
        let wanted =
            "--memory: not a number of bytes, with k, m or g behind it or without, from 1m up";
        return Err(End::unfit(wanted, text));
    };
    match most {
        Some(most) if bytes > most => Err(End::usage(format!(
            "--memory: {bytes} bytes is above {most}, what the machine or its cgroup allows"
        ))),
        _ => Ok(bytes),
    }
}

fn bytes(text: &str) -> Option<usize> {
    let units = [("k", 10), ("m", 20), ("g", 30)];
    let lower = text.to_ascii_lowercase();
    let unit = units
        .iter()
        .find_map(|(unit, shift)| Some((lower.strip_suffix(unit)?, shift)));
    let (number, shift) = unit.unwrap_or((&lower, &0));
    let only_digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse::<usize>().ok().filter(|_| only_digits)?;
    number.checked_mul(1 << shift)
}

/// The smallest limit of the groups that this process is in, of the groups around those, and of the machine, below
/// `root`. `None`: nothing of that is to be found.
fn machine(root: &Path) -> Option<usize> {
    let read = |path: &Path| fs::read_to_string(root.join(path)).unwrap_or_default();
    let groups = limit_files(&read(Path::new("proc/self/cgroup")));
    let groups = groups.iter().map(|file| read(file));
    // "max" is no number.
    let groups = groups.filter_map(|limit| limit.trim().parse().ok());
    groups.chain(total(&read(Path::new("proc/meminfo")))).min()
}

/// The files that hold the limits of these groups and of those around them (cgroups(7)): of version 2 the one group
/// without controllers, of version 1 the group of the memory controller. In a container that sees its own groups alone,
/// some of the files are not there.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (folder, name) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let around = Path::new(group.trim_start_matches('/')).ancestors();
        files.extend(around.map(|group| Path::new(folder).join(group).join(name)));
    }
    files
}

/// The memory of the machine, by /proc/meminfo.
fn total(meminfo: &str) -> Option<usize> {
    let mut lines = meminfo.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: usize = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_read_bytes_with_a_unit_or_without() {
        for (text, expected) in [
            ("1048576", Some(1 << 20)),
            ("2048k", Some(2 << 20)),
            ("64m", Some(64 << 20)),
            ("64M", Some(64 << 20)),
            ("3g", Some(3 << 30)),
            ("", None),
            ("m", None),
            ("-1m", None),
            ("+1m", None),
            ("1.5g", None),
            ("64mb", None),
            ("99999999999999999999", None),
            ("99999999999999999g", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn must_refuse_what_is_too_little_or_more_than_there_is() {
        for text in ["1023k", "0", "-64m", "9999999g"] {
            let Err(End::Trouble(cause)) = limit(Some(text)) else {
                panic!("{text} is taken");
            };
            assert!(cause.starts_with("--memory: "), "{cause}");
        }
        assert_eq!(limit(Some("1m")).unwrap(), 1 << 20);
    }

    /// A folder that is removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let name = format!("thrifty-{}-{name}", std::process::id());
            let folder = Folder(std::env::temp_dir().join(name));
            for (path, text) in files {
                let path = folder.0.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            folder
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemFree: 1 kB\nMemTotal:       1000 kB\nSwapTotal: 5 kB\n",
    );

    fn allowed(name: &str, files: &[(&str, &str)]) -> Option<usize> {
        machine(&Folder::new(name, files).0)
    }

    #[test]
    fn must_take_the_smallest_limit_of_groups_and_machine() {
        let v2 = ("proc/self/cgroup", "0::/a/b\n");
        let v1 = (
            "proc/self/cgroup",
            "5:cpu:/x\n4:hugetlb,memory:/a/b\n0::/\n",
        );
        let max = |path| (path, "max\n");
        let none = "9223372036854771712\n";
        assert_eq!(allowed("nothing", &[]), None);
        assert_eq!(allowed("machine", &[MEMINFO]), Some(1_024_000));
        let own = ("sys/fs/cgroup/a/b/memory.max", "7000\n");
        let around = ("sys/fs/cgroup/a/memory.max", "6000\n");
        let top = ("sys/fs/cgroup/memory.max", "5000\n");
        let free = max("sys/fs/cgroup/a/b/memory.max");
        assert_eq!(allowed("own", &[MEMINFO, v2, own]), Some(7000));
        let files = [MEMINFO, v2, free, around];
        assert_eq!(allowed("around", &files), Some(6000));
        // The smallest counts, not the innermost.
        assert_eq!(allowed("both", &[MEMINFO, v2, own, around]), Some(6000));
        // The container sees its own group as the top, whatever its path.
        assert_eq!(allowed("top", &[MEMINFO, v2, top]), Some(5000));
        assert_eq!(allowed("free", &[MEMINFO, v2, free]), Some(1_024_000));
        let own = ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "7000\n");
        let around = ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "6000\n");
        let free = ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", none);
        let other = ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1\n");
        assert_eq!(allowed("own 1", &[MEMINFO, v1, own, other]), Some(7000));
        let files = [MEMINFO, v1, free, around];
        assert_eq!(allowed("around 1", &files), Some(6000));
        assert_eq!(allowed("free 1", &[MEMINFO, v1, free]), Some(1_024_000));
        let files = [MEMINFO, v1, own, around];
        assert_eq!(allowed("both 1", &files), Some(6000));
        let top_1 = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4000\n");
        assert_eq!(allowed("top 1", &[MEMINFO, v1, own, top_1]), Some(4000));
        // A machine may have both versions.
        let files = [MEMINFO, v1, own, top];
        assert_eq!(allowed("1 and 2", &files), Some(5000));
    }

    #[test]
    fn must_take_three_quarters_of_what_there_is_unless_told_otherwise() {
        let machine = "proc/meminfo";
        let group = ("sys/fs/cgroup/memory.max", "400000000\n");
        let own = ("proc/self/cgroup", "0::/\n");
        for (name, files, expected) in [
            (
                "default",
                vec![(machine, "MemTotal: 1000000 kB\n")],
                768_000_000,
            ),
            (
                "default of a group",
                vec![(machine, "MemTotal: 1000000 kB\n"), own, group],
                300_000_000,
            ),
            ("little", vec![MEMINFO], LEAST),
            ("untold", vec![], USUAL / 4 * 3),
        ] {
            let most = allowed(name, &files);
            assert_eq!(limit_of(None, most).unwrap(), expected, "{name}");
        }
        assert!(limit_of(Some("2m"), Some(1 << 20)).is_err());
    }

    #[test]
    fn must_pass_over_what_is_no_group() {
        for text in ["", "\n\n", "0\n", "0:\n", "::", "9:name=systemd:/a\n"] {
            let files = [MEMINFO, ("proc/self/cgroup", text)];
            assert_eq!(allowed("odd", &files), Some(1_024_000), "{text:?}");
        }
    }
}
