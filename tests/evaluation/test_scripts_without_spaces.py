"""Chinese, Japanese, Korean, Thai, Lao, Khmer, Burmese: an answer that is there is found, one that is not is not."""

from __future__ import annotations

import pytest

import ragscale as rs
from ragscale._scripts import spaced
from ragscale.evaluation import Example, LanguageModel, Score, Task
from ragscale.evaluation._answers import contains, exact_match, f1, normalise
from ragscale.evaluation._coverage import can_be_found, contains_answer, words
from ragscale.passages import Passage
from ragscale.retrieval import BM25Retriever, ContainsQuestion, NearDuplicates


class Says(LanguageModel):
    """Reads bytes and writes one text."""

    max_length, prefix_token = 4096, 0

    def __init__(self, text):
        self.text = text

    def _encode(self, texts):
        return [list(text.encode()) for text in texts]

    def _decode(self, tokens):
        return [bytes(row).decode(errors="replace") for row in tokens]

    def _score(self, requests):
        n = [len(request.continuations) for request in requests]
        return [Score((-1.0,) * k, (False,) * k) for k in n]

    def _generate(self, prompts, max_new_tokens, stop):
        return [self.text] * len(prompts)


# language, text that holds the answer, answer, one that is not there, text without the answer, question
CASES = {
    "chinese": ("北京是中国的首都，人口很多。", "北京", "上海", "大阪是西日本的城市。", "中国的首都是哪里？"),
    "rare han": ("他在𠮷野家吃饭。", "𠮷野家", "𠮷田", "他在家里看书。", "他在哪里吃饭"),
    "japanese": ("東京は日本の首都です。", "東京", "京都", "大阪は西日本の都市です。", "日本の首都はどこですか"),
    "katakana": ("エッフェル塔はパリにあります。", "エッフェル塔", "ローマ", "大阪は西の都市だ。", "パリの塔は何か"),
    "korean": ("파리는 프랑스의 수도이다.", "파리", "런던", "오사카는 일본의 도시이다.", "프랑스의 수도는 어디인가"),
    "thai": ("กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย", "กรุงเทพมหานคร", "เชียงใหม่", "ทะเลสาบอยู่ในภูเขา", "เมืองหลวงของไทย"),
    "lao": ("ວຽງຈັນເປັນເມືອງຫຼວງຂອງປະເທດລາວ", "ວຽງຈັນ", "ປາກເຊ", "ນ້ຳຢູ່ໃນພູ", "ເມືອງຫຼວງຂອງປະເທດລາວ"),
    "khmer": ("ភ្នំពេញជារាជធានីនៃប្រទេសកម្ពុជា", "ភ្នំពេញ", "សៀមរាប", "ទឹកនៅក្នុងព្រៃ", "រាជធានីនៃប្រទេសកម្ពុជា"),
    "burmese": ("ရန်ကုန်သည်မြန်မာနိုင်ငံ၏မြို့ကြီးဖြစ်သည်", "ရန်ကုန်", "မန္တလေး", "ပင်လယ်ကကျယ်တယ်", "မြန်မာနိုင်ငံ၏မြို့"),
    "tibetan": ("ལྷ་ས་ནི་བོད་ཀྱི་རྒྱལ་ས་ཡིན།", "ལྷ་ས", "གཞིས་ཀ", "མཚོ་ཆེན་པོ།", "བོད་ཀྱི་རྒྱལ་ས"),
}  # fmt: skip
EACH = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@EACH
def test_an_answer_inside_a_text_is_there_and_another_is_not(case):
    text, answer, absent, other, _ = case
    example = Example(id="1", question="?", answers=(answer,))
    assert can_be_found(example)
    assert contains_answer(example, text)
    assert not contains_answer(example, other)
    assert not contains_answer(Example(id="1", question="?", answers=(absent,)), text)
    assert contains(text, [answer]) == 1
    assert contains(text, [absent]) == contains(other, [answer]) == 0
    assert exact_match(f" {answer}。", [answer]) == 1
    assert 0 < f1(text, [answer]) < 1
    assert f1(answer, [answer]) == 1


@EACH
def test_a_store_is_searched_and_its_answers_found(case):
    text, answer, _, other, question = case
    store = [Passage("0", other, 9, "0"), Passage("1", "plain English words", 9, "1"), Passage("2", text, 9, "2")]
    retriever = BM25Retriever().index(store)
    assert retriever.search(question, k=1).ids[0, 0] == 2
    task = Task(name="t", kind="generate", examples=[Example(id="1", question=question, answers=answer)])
    found = rs.evaluate(Says(f"{answer}。"), task, retriever=retriever, store_tokens=[9, 27], k=1, N=1, D=1)
    rows = found.results[found.results["metric"] == "contains"].set_index("R")
    assert rows["value"].tolist() == [1, 1]
    assert rows["answer_in_store"].tolist() == [0, 1]
    assert rows.loc[27, "hit_rate"] == 1


def test_words_are_what_they_were_where_spaces_part_them():
    assert words("The Café's 3rd naïve door") == ["the", "cafe", "s", "3rd", "naive", "door"]
    assert words("Öl, Straße Ελλάδα Москва") == ["ol", "straße", "ελλαδα", "москва"]
    assert words("हिन्दी में") == ["हिन्दी", "में"]  # vowel signs are part of the word
    assert normalise("The  U.S. Army, an a! — “q”") == "us army — “q”"
    assert contains("Der Ölpreis stieg", ["Öl"]) == 0
    assert spaced("naïve text") == "naïve text"


def test_marks_that_change_a_word_are_kept_and_widths_are_not():
    assert not contains_answer(Example(id="1", question="?", answers="かき"), "がき")  # persimmon, imp
    assert not contains_answer(Example(id="1", question="?", answers="की"), "के लिए")
    assert contains_answer(Example(id="1", question="?", answers="ガラス"), "ｶﾞﾗｽの瓶")
    assert contains_answer(Example(id="1", question="?", answers="ABC１２"), "これはａｂｃ12です")
    assert contains_answer(Example(id="1", question="?", answers="محمد"), "هذا مُحَمَّد هنا")
    assert exact_match("２０２０年", ["2020年"]) == 1
    assert words("가각") == ["가", "각"]  # syllables, not their letters


def test_an_answer_without_a_word_cannot_be_found_or_missed():
    example = Example(id="1", question="?", answers=("?!", "$"))
    assert not can_be_found(example)
    store = BM25Retriever().index([Passage("0", "costs $ 5", 3, "0")])
    task = Task(name="t", kind="generate", examples=[example])
    found = rs.evaluate(Says("x"), task, retriever=store, store_tokens=3, k=1, N=1, D=1).results
    assert found[["hit_rate", "answer_in_store"]].isna().all().all()


def test_filters_read_characters_where_there_are_no_spaces():
    question = "中国的首都是哪里？"
    passages = [Passage("0", f"测验：{question}", 9, "0"), Passage("1", "北京是中国的首都。", 9, "1")]
    assert ContainsQuestion()(question, passages) == [False, True]
    long = "東京は日本の首都です。人口は約一千四百万人。"
    copies = [Passage("0", long, 9, "0"), Passage("1", long + "はい", 9, "1"), Passage("2", "大阪は都市です。", 9, "2")]
    assert NearDuplicates(threshold=0.7)("", copies) == [True, False, True]
