//! The options that the soaks share: a few numbers, and whether the run is kept for the record.

/// Reads `--name N` for each of `names`, which come with what they are unless told, and `--record`.
pub fn read<const N: usize>(
    words: &[&str],
    names: [(&str, u64); N],
    usage: &str,
) -> Result<([u64; N], bool), String> {
    let (mut values, mut record) = (names.map(|(_, unless_told)| unless_told), false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if *word == "--record" {
            record = true;
            continue;
        }
        let at = names.iter().position(|(name, _)| name == word).ok_or(usage)?;
        values[at] = words.next().and_then(|value| value.parse().ok()).ok_or(usage)?;
    }
    Ok((values, record))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_that_were_told_and_unknown_words_are_refused() {
        let names = [("--cycles", 1), ("--seed", 2)];
        assert_eq!(read(&["--seed", "7", "--record"], names, "usage"), Ok(([1, 7], true)));
        assert_eq!(read(&[], names, "usage"), Ok(([1, 2], false)));
        for wrong in [&["--cycles"][..], &["--cycles", "many"], &["fast"]] {
            assert_eq!(read(wrong, names, "usage"), Err("usage".to_owned()));
        }
    }
}
