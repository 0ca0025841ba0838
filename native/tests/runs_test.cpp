#include "../runs.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace {

using Tokens = std::vector<int32_t>;

std::vector<uint32_t> hashes_of(const std::vector<Tokens> &runs) {
    std::vector<uint32_t> hashes(runs.size());
    for (size_t i = 0; i < runs.size(); ++i) {
        steerx::run_hashes(runs[i], runs[i].size(), std::span(hashes).subspan(i, 1));
    }
    std::sort(hashes.begin(), hashes.end());
    return hashes;
}

// Which of the tokens 0 to 9 are left, each offered twice.
Tokens left(const Tokens &text, const std::vector<uint32_t> &hashes = {}, size_t length = 4) {
    Tokens offered;
    for (int32_t i = 0; i < 20; ++i) {
        offered.push_back(i % 10);
    }
    std::vector<float> shares(20, 1.0F);
    steerx::leave_out_runs(text, hashes, length, offered, shares);
    Tokens result;
    for (size_t i = 0; i < 10; ++i) {
        CHECK(shares[i] == shares[i + 10]);
        if (shares[i] == 1.0F) {
            result.push_back(offered[i]);
        }
    }
    return result;
}

Tokens all_but(const Tokens &missing) {
    Tokens result;
    for (int32_t token = 0; token < 10; ++token) {
        if (std::find(missing.begin(), missing.end(), token) == missing.end()) {
            result.push_back(token);
        }
    }
    return result;
}

Tokens drawn(unsigned seed, size_t n, int32_t n_letters) {
    std::mt19937 random(seed);
    Tokens text(n);
    std::generate(text.begin(), text.end(), [&] { return static_cast<int32_t>(random() % n_letters); });
    return text;
}

} // namespace

TEST_CASE("hashes are those that memory files hold") {
    const std::vector<int32_t> runs = {0, 0, 0, 0, 1, 2, 3, 4, 4, 3, 2, 1, 49151, 0, 7, 2147483647, -1, 5, -7, 5};
    std::vector<uint32_t> hashes(5);
    steerx::run_hashes(runs, 4, hashes);
    CHECK(hashes == std::vector<uint32_t>{3225325860U, 2646647500U, 4080500788U, 987983807U, 2297307321U});
}

TEST_CASE("a run of three that already occurs in the text is not completed") {
    CHECK(left({1, 2, 3, 1, 2}) == all_but({3})); // it may begin the text
    CHECK(left({1, 1}) == all_but({}));
    CHECK(left({1, 1, 1}) == all_but({1}));
    CHECK(left({0, 1, 2, 5, 1, 2, 7, 1, 2}) == all_but({5, 7}));
    CHECK(left({2}) == all_but({}));
    CHECK(left({}) == all_but({}));
}

TEST_CASE("a run whose hash is known is not completed, and is known by all of its tokens") {
    const Tokens text = {20, 21, 22, 23, 24, 25};
    for (const size_t length : {size_t{1}, size_t{4}, size_t{5}}) {
        const Tokens begun(text.end() - static_cast<std::ptrdiff_t>(length) + 1, text.end());
        std::vector<Tokens> known = {begun, begun, Tokens(length, 30)};
        known[0].push_back(7);
        known[1].push_back(2);
        CHECK(left(text, hashes_of(known), length) == all_but({2, 7}));
    }
    const auto known = hashes_of({{21, 22, 23, 5}});
    CHECK(left({21, 22, 23}, known) == all_but({5}));
    for (const Tokens &other : {Tokens{21, 22, 24}, Tokens{9, 22, 23}, Tokens{22, 23}, Tokens{}}) {
        CHECK(left(other, known) == all_but({}));
    }
}

TEST_CASE("a text that repeats its end is told") {
    CHECK(steerx::ends_in_a_repeat(Tokens{1, 2, 3, 1, 2}, 2));
    CHECK(steerx::ends_in_a_repeat(Tokens{1, 1, 1}, 2)); // may overlap
    CHECK_FALSE(steerx::ends_in_a_repeat(Tokens{1, 2, 3, 2, 1}, 2));
    CHECK_FALSE(steerx::ends_in_a_repeat(Tokens{1, 2}, 2));
    CHECK_FALSE(steerx::ends_in_a_repeat(Tokens{}, 1));
    for (unsigned seed = 0; seed < 40; ++seed) {
        const Tokens text = drawn(seed, seed / 2, 3);
        for (const size_t length : {size_t{1}, size_t{3}, size_t{6}}) {
            bool repeats = false;
            for (size_t end = length; end < text.size(); ++end) {
                repeats = repeats || std::equal(text.end() - static_cast<std::ptrdiff_t>(length), text.end(),
                                                text.begin() + static_cast<std::ptrdiff_t>(end - length));
            }
            CHECK(steerx::ends_in_a_repeat(text, length) == repeats);
        }
    }
}
