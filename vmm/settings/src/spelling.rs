//! Guesses what a misspelt word was meant to be.

/// Whether a word was probably meant to be another: both have the same letters but for one added, left out or changed,
/// or for two that are swapped.
pub(crate) fn is_like(word: &str, known: &str) -> bool {
    let common = word.bytes().zip(known.bytes()).take_while(|(one, other)| one == other).count();
    let (word, known) =
        (word.as_bytes().get(common..).unwrap_or_default(), known.as_bytes().get(common..).unwrap_or_default());
    let rest = |bytes: &'_ [u8], skip: usize| bytes.get(skip..).map(<[u8]>::to_vec);
    let swapped = matches!((word, known), ([a, b, tail @ ..], [c, d, rest @ ..]) if (a, b, tail) == (d, c, rest));
    swapped
        || rest(word, 1) == rest(known, 1)
        || rest(word, 1).as_deref() == Some(known)
        || rest(known, 1).as_deref() == Some(word)
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn a_misspelt_word_is_recognised() {
        for misspelt in ["priorty", "prioority", "priolity", "proirity", "rpiority", "prioritys", "prior1ty"] {
            assert!(is_like(misspelt, "priority"), "{misspelt}");
        }
        for other in ["", "prio", "memory", "period_us"] {
            assert!(!is_like(other, "priority"), "{other}");
        }
    }
}
