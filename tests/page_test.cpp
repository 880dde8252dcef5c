#include "io/page.h"

#include <gtest/gtest.h>

namespace cinelumen::page {
namespace {

TEST(Page, NamesAreWrittenAsPeopleWriteThem) {
  EXPECT_EQ(person_name("Doe^John"), "Doe, John");
  EXPECT_EQ(person_name("Doe^John^Q^Dr^Jr"), "Doe, Dr John Q, Jr");
  EXPECT_EQ(person_name("Doe"), "Doe");
  EXPECT_EQ(person_name("^John"), "John");
  EXPECT_EQ(person_name(" Doe ^ John "), "Doe, John");
  EXPECT_EQ(person_name("Yamada^Tarou=山田^太郎=やまだ^たろう"), "Yamada, Tarou");
  EXPECT_EQ(person_name("=山田^太郎"), "山田, 太郎");
  EXPECT_EQ(person_name("^^^^"), "");
  EXPECT_EQ(person_name(""), "");
}

TEST(Page, ThePatientIsEscaped) {
  RunDescription description;
  description.patient_name = "A&B^<i>";
  description.patient_id = "7";
  EXPECT_EQ(patient(description), "<b>A&amp;B, &lt;i&gt;</b><br>ID 7<br>");
}

}  // namespace
}  // namespace cinelumen::page
